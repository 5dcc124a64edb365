//! How long answers are used, and what becomes of them then.

use super::*;
use crate::upstream::dns::Found;

fn answer(ips: &[&str]) -> Answer {
    let found = ips.iter().map(|ip| Found::at(ip.parse().unwrap())).collect();
    Answer::of(found, Duration::from_secs(60), None).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_addresses_of_a_name_take_turns_and_one_that_failed_comes_last() {
    let answer = answer(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    let mut entry = Entry::new(Instant::now());
    let mut firsts = Vec::new();
    for _ in 0..4 {
        firsts.push(entry.in_turn(&answer, 80, Instant::now())[0].to_string());
    }
    assert_eq!(firsts, ["127.0.0.1:80", "127.0.0.2:80", "127.0.0.3:80", "127.0.0.1:80"]);
    let failed = answer.found[1].ip;
    entry.failed.push((failed, Instant::now()));
    for _ in 0..3 {
        let order = entry.in_turn(&answer, 80, Instant::now());
        assert_eq!((order.len(), order[2].ip()), (3, failed));
    }
    tokio::time::advance(LAST_FOR).await;
    let firsts: Vec<_> = (0..3).map(|_| entry.in_turn(&answer, 80, Instant::now())[0].ip()).collect();
    assert!(firsts.contains(&failed), "{firsts:?}");
}

#[tokio::test(start_paused = true)]
async fn answers_are_good_for_their_ttl_within_bounds_and_failures_briefly() {
    let (known, question) = (Known::default(), Question::Host("app".into()));
    let again = |asked, valid| {
        known.finish(&question, asked, valid);
        known.names()[&question].again - Instant::now()
    };
    let ttl = |seconds| Ok(Answer { ttl: Duration::from_secs(seconds), ..answer(&["10.0.0.1"]) });
    assert_eq!(again(ttl(60), None), Duration::from_secs(60));
    assert_eq!(again(ttl(0), None), SHORTEST);
    assert_eq!(again(ttl(86_400), None), LONGEST);
    assert_eq!(again(ttl(60), Some(Duration::from_secs(3600))), Duration::from_secs(3600));
    for seconds in [1, 1, 2, 5, 5] {
        assert_eq!(again(Err(LookupError::NoName), None), Duration::from_secs(seconds));
    }
    // The last good one stays.
    assert!(known.outcome(&question).is_ok());
    assert_eq!(again(Err(LookupError::NoName), None), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_used_for_a_while_after_its_time_but_not_once_it_is_doubted() {
    let (known, question) = (Known::default(), Question::Host("app".into()));
    let is = |usable: io::Result<Usable>| match usable.unwrap() {
        Usable::Good(_) => "good",
        Usable::Stale(_) => "stale",
        Usable::Wait(_) => "wait",
    };
    assert_eq!(is(known.usable(&question)), "wait");
    known.finish(&question, Ok(answer(&["10.0.0.1"])), None);
    assert_eq!(is(known.usable(&question)), "good");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(is(known.usable(&question)), "stale");
    known.names().get_mut(&question).unwrap().is_doubted = true;
    assert_eq!(is(known.usable(&question)), "wait");
    known.finish(&question, Ok(answer(&["10.0.0.1"])), None);
    tokio::time::advance(Duration::from_secs(60) + STALE).await;
    assert_eq!(is(known.usable(&question)), "wait");
}

#[tokio::test(start_paused = true)]
async fn a_bounded_number_of_names_is_known_and_those_of_groups_stay() {
    let known = Known::default();
    for number in 0..MOST + 10 {
        let question = Question::Host(number.to_string());
        known.usable(&question).map(drop).unwrap();
        known.names().get_mut(&question).unwrap().is_watched = number == 0;
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let names = known.names();
    let has = |number: usize| names.contains_key(&Question::Host(number.to_string()));
    assert_eq!((names.len(), has(0), has(1), has(MOST + 9)), (MOST, true, false, true));
}

#[tokio::test(start_paused = true)]
async fn connections_to_an_address_that_has_gone_are_known() {
    let (resolver, question) = (Resolver::default(), Question::Host("app".into()));
    let (gone, since): (SocketAddr, _) = ("10.0.0.1:80".parse().unwrap(), Instant::now());
    resolver.known.finish(&question, Ok(answer(&["10.0.0.1", "10.0.0.2"])), None);
    tokio::time::advance(Duration::from_secs(1)).await;
    resolver.known.finish(&question, Ok(answer(&["10.0.0.2"])), None);
    assert!(resolver.has_left(gone, since));
    assert!(!resolver.has_left("10.0.0.2:80".parse().unwrap(), since));
    // Once it is back, new ones are as good as any.
    tokio::time::advance(Duration::from_secs(1)).await;
    resolver.known.finish(&question, Ok(answer(&["10.0.0.1"])), None);
    assert!(!resolver.has_left(gone, Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_bounded_number_of_addresses_that_have_gone_is_known_and_those_of_groups_are_among_them() {
    let known = Known::default();
    let finish = |question: &Question, ips: Vec<std::net::Ipv4Addr>| {
        let found = ips.into_iter().map(|ip| Found::at(ip.into())).collect();
        known.finish(question, Answer::of(found, Duration::from_secs(1), None), None);
    };
    let made_up = Question::Host("made.up".into());
    for number in 0..40_u8 {
        finish(&made_up, (0..=255).map(|last| [10, 0, number, last].into()).collect());
    }
    assert_eq!(known.left().len(), MOST_LEFT);
    let app = Question::Host("app".into());
    finish(&app, vec![[192, 0, 2, 1].into()]);
    known.names().get_mut(&app).unwrap().is_watched = true;
    finish(&app, vec![[192, 0, 2, 2].into()]);
    assert_eq!(known.left().len(), MOST_LEFT + 1);
}
