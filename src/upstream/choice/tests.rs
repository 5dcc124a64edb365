//! Which server has its turn, as tables and as stories of failures.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{KeepAlive, Upstream, UpstreamAddress, UpstreamServer};
use crate::routing::variables::Template;

fn servers(weights: &[u32]) -> Vec<UpstreamServer> {
    let server = |(index, weight): (usize, &u32)| {
        let address = UpstreamAddress::Name { host: index.to_string(), port: 1 };
        UpstreamServer { weight: *weight, ..UpstreamServer::new(index.to_string(), address) }
    };
    weights.iter().enumerate().map(server).collect()
}

fn upstream(balance: Balance, servers: Vec<UpstreamServer>) -> Upstream {
    Upstream { name: "a".into(), servers, balance, keepalive: KeepAlive::default() }
}

fn group(balance: Balance, servers: Vec<UpstreamServer>) -> Group {
    Group::new(upstream(balance, servers), &[])
}

/// The server of a request that does not fail.
fn next(group: &Group, now: Instant) -> Option<usize> {
    let mut choice = Choice::new(group, b"key".to_vec(), None);
    let lease = choice.choose(now)?;
    choice.answered(&lease);
    Some(lease.index())
}

/// Has the servers fail one request after the other as far as they are chosen.
fn all_of(choice: &mut Choice<'_>, now: Instant) -> Vec<usize> {
    let mut chosen = Vec::new();
    while let Some(lease) = choice.choose(now) {
        choice.failed(&lease, now);
        chosen.push(lease.index());
        assert!(chosen.len() < 10, "{chosen:?}");
    }
    chosen
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn round_robin_spreads_the_turns_of_a_heavy_server() {
    let group = group(Balance::RoundRobin, servers(&[5, 1, 1]));
    let now = Instant::now();
    let turns: Vec<_> = (0..7).filter_map(|_| next(&group, now)).collect();
    assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn every_server_is_given_out_once_and_then_none_is_left() {
    let key = Template::parse("$host").unwrap();
    for balance in [
        Balance::RoundRobin,
        Balance::LeastConn,
        Balance::IpHash,
        Balance::Hash { key: key.clone(), is_consistent: false },
        Balance::Hash { key: key.clone(), is_consistent: true },
        Balance::Rendezvous { key },
        Balance::Random,
        Balance::RandomTwo,
    ] {
        let group = group(balance, servers(&[3, 1, 2]));
        let mut choice = Choice::new(&group, b"key".to_vec(), None);
        let mut tried = all_of(&mut choice, Instant::now());
        tried.sort_unstable();
        assert_eq!((tried, choice.tries()), (vec![0, 1, 2], 0));
    }
}

#[test]
fn a_server_that_has_failed_is_left_alone_and_then_tried_by_one_request() {
    let mut two = servers(&[1, 1]);
    two[0].max_fails = NonZeroU32::new(2);
    let (group, start) = (group(Balance::RoundRobin, two), Instant::now());
    let fail = |at: Instant| {
        let mut choice = Choice::new(&group, Vec::new(), None);
        let lease = choice.choose(at).unwrap();
        assert_eq!(lease.index(), 0);
        choice.failed(&lease, at)
    };
    assert!(!fail(start), "one failure is none");
    assert_eq!(next(&group, start), Some(1));
    assert!(fail(start), "the second one is");
    for _ in 0..4 {
        assert_eq!(next(&group, start + 10 * SECOND), Some(1));
    }
    // It is due: one request finds out, and the others go on without it meanwhile.
    let later = start + 11 * SECOND;
    assert_eq!(next(&group, later), Some(1), "the other one has waited");
    let mut probe = Choice::new(&group, Vec::new(), None);
    let lease = probe.choose(later).unwrap();
    assert_eq!(lease.index(), 0);
    assert_eq!([next(&group, later), next(&group, later)], [Some(1), Some(1)]);
    probe.answered(&lease);
    let well = [next(&group, later), next(&group, later)];
    assert!(well.contains(&Some(0)), "{well:?}");
}

#[test]
fn failures_take_weight_away_that_comes_back_turn_by_turn() {
    let mut two = servers(&[4, 1]);
    two[0].max_fails = NonZeroU32::new(2);
    let (group, now) = (group(Balance::RoundRobin, two), Instant::now());
    let mut choice = Choice::new(&group, Vec::new(), None);
    let lease = choice.choose(now).unwrap();
    choice.failed(&lease, now);
    let effective = |group: &Group| group.current().turns().effective(0);
    assert_eq!(effective(&group), 2);
    // Its current weight is -1 by now: 2 more makes 1, beside 2 of the other one.
    assert_eq!((next(&group, now), effective(&group)), (Some(1), 3));
    assert_eq!((next(&group, now), effective(&group)), (Some(0), 4));
    assert_eq!((next(&group, now), effective(&group)), (Some(0), 4));
}

#[test]
fn failures_that_are_far_apart_do_not_add_up() {
    let mut two = servers(&[1, 1]);
    two[0].max_fails = NonZeroU32::new(2);
    let (group, start) = (group(Balance::RoundRobin, two), Instant::now());
    for round in 0..4 {
        let at = start + round * 11 * SECOND;
        let mut choice = Choice::new(&group, Vec::new(), None);
        let failing = std::iter::from_fn(|| choice.choose(at)).find(|lease| lease.index() == 0).unwrap();
        assert!(!choice.failed(&failing, at), "{round}");
        // A request in between has an answer, which is when the count begins anew.
        let between = at + 10 * SECOND + SECOND / 2;
        while next(&group, between) != Some(0) {}
    }
}

#[test]
fn a_single_server_is_never_left_alone() {
    let (group, now) = (group(Balance::RoundRobin, servers(&[1])), Instant::now());
    for _ in 0..3 {
        let mut choice = Choice::new(&group, Vec::new(), None);
        let lease = choice.choose(now).unwrap();
        assert!(!choice.failed(&lease, now));
        assert_eq!(choice.tries(), 0);
    }
}

#[test]
fn when_every_server_has_failed_none_is_left_until_its_time_is_over() {
    let (group, now) = (group(Balance::RoundRobin, servers(&[1, 1])), Instant::now());
    assert_eq!(all_of(&mut Choice::new(&group, Vec::new(), None), now).len(), 2);
    assert_eq!(next(&group, now + 10 * SECOND), None);
    assert!(next(&group, now + 11 * SECOND).is_some());
}

#[test]
fn backups_serve_while_no_other_server_can() {
    for balance in [Balance::RoundRobin, Balance::LeastConn] {
        let mut four = servers(&[1, 1, 2, 1]);
        four[1].is_backup = true;
        four[2].is_backup = true;
        let (group, now) = (group(balance, four), Instant::now());
        let regular: Vec<_> = (0..4).filter_map(|_| next(&group, now)).collect();
        assert_eq!(regular, [0, 3, 0, 3]);
        let mut choice = Choice::new(&group, Vec::new(), None);
        assert_eq!(choice.tries(), 4);
        assert_eq!(all_of(&mut choice, now), [0, 3, 2, 1]);
        // One that is single beside its backup can be left alone: nginx counts both.
        let mut two = servers(&[1, 1]);
        two[1].is_backup = true;
        let group = super::tests::group(Balance::RoundRobin, two);
        let mut choice = Choice::new(&group, Vec::new(), Some(1));
        let lease = choice.choose(now).unwrap();
        choice.failed(&lease, now);
        assert_eq!(choice.tries(), 0);
        assert_eq!(next(&group, now), Some(1));
    }
}

#[test]
fn a_server_that_is_down_or_full_is_not_chosen() {
    let mut three = servers(&[1, 1, 1]);
    three[0].is_down = true;
    three[1].max_conns = Some(1);
    let (group, now) = (group(Balance::RoundRobin, three), Instant::now());
    let mut held: Vec<_> = Vec::new();
    for _ in 0..4 {
        held.extend(Choice::new(&group, Vec::new(), None).choose(now));
    }
    assert_eq!(held.iter().map(Lease::index).collect::<Vec<_>>(), [1, 2, 2, 2]);
    held.clear();
    assert_eq!([next(&group, now), next(&group, now)], [Some(2), Some(1)]);

    let mut one = servers(&[1]);
    one[0].max_conns = Some(1);
    let single = super::tests::group(Balance::RoundRobin, one.clone());
    let lease = Choice::new(&single, Vec::new(), None).choose(now);
    assert!(lease.is_some() && next(&single, now).is_none());
    drop(lease);
    assert_eq!(next(&single, now), Some(0));
    one[0].is_down = true;
    assert_eq!(next(&super::tests::group(Balance::RoundRobin, one), now), None);
}

#[test]
fn least_conn_counts_what_is_held_for_each_weight_and_over_a_reload() {
    let before = Arc::new(group(Balance::LeastConn, servers(&[2, 1])));
    let now = Instant::now();
    let hold = |_| Choice::new(&before, Vec::new(), None).choose(now);
    let held: Vec<_> = (0..6).filter_map(hold).collect();
    assert_eq!(held.iter().filter(|lease| lease.index() == 0).count(), 4);
    let mut changed = servers(&[2, 1]);
    changed[0].weight = 3;
    let after = Group::new(upstream(Balance::LeastConn, changed), &[Arc::clone(&before)]);
    let (_still_held, given_back): (Vec<_>, Vec<_>) = held.into_iter().partition(|lease| lease.index() == 0);
    drop(given_back);
    assert_eq!(next(&after, now), Some(1));
}

#[test]
fn a_server_that_was_left_alone_stays_so_over_a_reload() {
    let before = Arc::new(group(Balance::RoundRobin, servers(&[1, 1, 1])));
    let now = Instant::now();
    let mut choice = Choice::new(&before, Vec::new(), None);
    let lease = choice.choose(now).unwrap();
    choice.failed(&lease, now);
    let mut changed = servers(&[1, 1, 1]);
    changed.swap(0, 2);
    let after = Group::new(upstream(Balance::RoundRobin, changed), &[Arc::clone(&before)]);
    let turns: Vec<_> = (0..4).filter_map(|_| next(&after, now)).collect();
    assert_eq!(turns, [0, 1, 0, 1]);
}

#[test]
fn random_two_takes_the_one_with_less_to_do() {
    let (group, now) = (group(Balance::RandomTwo, servers(&[1, 1])), Instant::now());
    let mut held = Vec::new();
    for _ in 0..20 {
        held.extend(Choice::new(&group, Vec::new(), None).choose(now));
    }
    // Of two servers both are drawn, but for the rare time that one of them comes up 20 times.
    assert_eq!(held.iter().filter(|lease| lease.index() == 0).count(), 10);
}

#[test]
fn the_places_of_many_servers_are_remembered() {
    let mut tried = Tried::default();
    for index in [0, 63, 64, 200] {
        assert!(!tried.contains(index));
        tried.add(index);
        assert!(tried.contains(index));
    }
    assert!(!tried.contains(1) && !tried.contains(128));
}

fn rendezvous(servers: Vec<UpstreamServer>) -> Group {
    group(Balance::Rendezvous { key: Template::parse("$host").unwrap() }, servers)
}

/// The servers of a key, in the order in which they are tried.
fn ranking(group: &Group, key: &str, now: Instant) -> Vec<usize> {
    let mut choice = Choice::new(group, key.into(), None);
    std::iter::from_fn(|| choice.choose(now).map(|lease| lease.index())).collect()
}

#[test]
fn a_rendezvous_without_one_server_is_the_same_for_the_keys_of_the_others() {
    let now = Instant::now();
    let all = rendezvous(servers(&[1, 3, 1, 2, 1]));
    let without = |change: fn(&mut UpstreamServer)| {
        let mut four = servers(&[1, 3, 1, 2, 1]);
        change(&mut four[1]);
        rendezvous(four)
    };
    let down = without(|server| server.is_down = true);
    let full = without(|server| server.max_conns = Some(1));
    let taken = (0..).find_map(|key: u32| {
        let mut choice = Choice::new(&full, key.to_string().into_bytes(), None);
        choice.choose(now).filter(|lease| lease.index() == 1)
    });
    let failed = rendezvous(servers(&[1, 3, 1, 2, 1]));
    assert!(failed.current().failed(1, now), "it is left alone");
    for key in (0..200).map(|key| key.to_string()) {
        let mut expected = ranking(&all, &key, now);
        assert_eq!(expected.len(), 5, "{expected:?}");
        expected.retain(|index| *index != 1);
        for group in [&down, &full, &failed] {
            assert_eq!(ranking(group, &key, now), expected, "{key}");
        }
    }
    drop(taken);
    assert!((0..20).any(|key| ranking(&full, &key.to_string(), now)[0] == 1), "it has room again");
}

#[test]
fn the_backups_of_a_rendezvous_are_ranked_behind_all_others() {
    let now = Instant::now();
    let mut five = servers(&[1, 1, 1, 1, 1]);
    (five[1].is_backup, five[3].is_backup) = (true, true);
    let group = rendezvous(five);
    let mut firsts = std::collections::BTreeSet::new();
    for key in (0..50).map(|key| key.to_string()) {
        let ranking = ranking(&group, &key, now);
        assert!(ranking.len() == 5 && ranking[3..].iter().all(|index| [1, 3].contains(index)), "{ranking:?}");
        firsts.extend([ranking[0], ranking[3]]);
    }
    assert_eq!(firsts.len(), 5, "{firsts:?}");
}

#[test]
fn an_empty_key_of_a_rendezvous_leaves_it_to_the_turns() {
    let (group, now) = (rendezvous(servers(&[2, 1])), Instant::now());
    let turn = || Choice::new(&group, Vec::new(), None).choose(now).map(|lease| lease.index());
    assert_eq!([turn(), turn(), turn()], [Some(0), Some(1), Some(0)]);
}

#[test]
fn a_load_that_falls_meanwhile_does_not_leave_a_request_without_a_server() {
    let group = group(Balance::LeastConn, servers(&[1, 1]));
    let now = Instant::now();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..50_000 {
                    let lease = Choice::new(&group, Vec::new(), None).choose(now);
                    let lease = lease.expect("there are servers");
                    (0..fastrand::u32(..300)).for_each(|_| std::hint::spin_loop());
                    drop(lease);
                }
            });
        }
    });
}

/// One server of nginx's round robin, by the book: nothing is left out, whatever is the matter with the others.
#[derive(Clone)]
struct Peer {
    weight: i64,
    current: i64,
    effective: i64,
    fails: u32,
    failed: Option<Instant>,
    checked: Option<Instant>,
}

/// Takes down that a server has answered, and that of its peer.
fn answer(peers: &mut [Peer], choice: &Choice<'_>, lease: &Lease) {
    choice.answered(lease);
    let peer = &mut peers[lease.index()];
    if peer.failed < peer.checked {
        peer.fails = 0;
    }
}

/// The next turn among all peers but those that were tried.
fn by_the_book(peers: &mut [Peer], tried: &[usize], now: Instant) -> Option<usize> {
    let mut total = 0;
    let mut best: Option<usize> = None;
    for index in 0..peers.len() {
        let peer = &mut peers[index];
        let is_due = peer.checked.is_none_or(|checked| now - checked > 10 * SECOND);
        if tried.contains(&index) || peer.fails >= 1 && !is_due {
            continue;
        }
        peer.current += peer.effective;
        total += peer.effective;
        peer.effective = peer.weight.min(peer.effective + 1);
        if best.is_none_or(|best| peers[index].current > peers[best].current) {
            best = Some(index);
        }
    }
    let peer = &mut peers[best?];
    peer.current -= total;
    if peer.checked.is_none_or(|checked| now - checked > 10 * SECOND) {
        peer.checked = Some(now);
    }
    best
}

proptest::proptest! {
    #[test]
    fn the_turns_are_those_of_going_through_all_servers(
        weights in proptest::collection::vec(1_u32..12, 2..12),
        // How many servers fail each request, and how many seconds later the next one comes.
        requests in proptest::collection::vec((0_usize..12, 0_u64..8, 0_u64..4), 1..80),
    ) {
        let group = group(Balance::RoundRobin, servers(&weights));
        let mut peers: Vec<_> = weights.iter().map(|weight| {
            let weight = i64::from(*weight);
            Peer { weight, current: 0, effective: weight, fails: 0, failed: None, checked: None }
        }).collect();
        let (mut now, mut waits) = (Instant::now(), None);
        for (failures, chance, seconds) in requests {
            now += Duration::from_secs(seconds);
            let mut choice = Choice::new(&group, Vec::new(), None);
            let mut tried = Vec::new();
            loop {
                let lease = choice.choose(now);
                let expected = by_the_book(&mut peers, &tried, now);
                proptest::prop_assert_eq!(lease.as_ref().map(Lease::index), expected);
                let Some(lease) = lease else { break };
                let peer = &mut peers[lease.index()];
                // Most requests fail nowhere. Some are answered when the next one is.
                if chance > 0 || tried.len() >= failures {
                    let late = waits.take();
                    waits = Some((choice, lease));
                    if chance > 1 {
                        late.into_iter().chain(waits.take()).for_each(|(choice, lease)| answer(&mut peers, &choice, &lease));
                    } else {
                        late.into_iter().for_each(|(choice, lease)| answer(&mut peers, &choice, &lease));
                    }
                    break;
                }
                choice.failed(&lease, now);
                (peer.fails, peer.failed, peer.checked) = (peer.fails + 1, Some(now), Some(now));
                peer.effective = (peer.effective - peer.weight).max(0);
                tried.push(lease.index());
            }
        }
    }
}
