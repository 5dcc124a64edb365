//! Pure: nginx's smooth weighted round robin over servers that all take part, in steps that do not grow with their
//! number.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Whose turn it is, for as long as the same servers take part with the same weights.
///
/// In each round every server gains its weight, and the one that has the most then loses what all have gained. Those of
/// the same weight gain alike: it is written down once for all of them, and of each its distance from that.
#[derive(Debug, Default)]
pub(super) struct Rota {
    classes: Vec<Class>,
    total: i64,
}

/// The servers of one weight.
#[derive(Debug)]
struct Class {
    weight: i64,
    gained: i64,
    /// What each has beside that; of equals, the first in the list of servers is the first here.
    servers: BinaryHeap<(i64, Reverse<usize>)>,
}

impl Rota {
    /// How many different weights there are: each costs a step in every round.
    pub(super) fn weights(&self) -> usize {
        self.classes.len()
    }

    /// Has a server take part, with what it has gained and lost so far.
    pub(super) fn add(&mut self, place: usize, weight: i64, current: i64) {
        self.total += weight;
        let class = match self.classes.iter().position(|class| class.weight == weight) {
            Some(known) => &mut self.classes[known],
            None => {
                self.classes.push(Class { weight, gained: 0, servers: BinaryHeap::new() });
                self.classes.last_mut().expect("one that was just added")
            }
        };
        class.servers.push((current - class.gained, Reverse(place)));
    }

    /// The place of the server that has the next turn; `None` if there is none.
    pub(super) fn next(&mut self) -> Option<usize> {
        self.classes.iter_mut().for_each(|class| class.gained += class.weight);
        let first =
            |class: &Class| class.servers.peek().map(|(beside, place)| (beside + class.gained, *place));
        let best = self.classes.iter_mut().max_by_key(|class| first(class))?;
        let mut server = best.servers.peek_mut()?;
        server.0 -= self.total;
        Some(server.1.0)
    }

    /// What each server has gained and lost, by its place.
    pub(super) fn currents(&self) -> impl Iterator<Item = (usize, i64)> {
        let of = |class: &Class, beside: i64| beside + class.gained;
        let classes = self.classes.iter();
        classes.flat_map(move |class| {
            class.servers.iter().map(move |(beside, place)| (place.0, of(class, *beside)))
        })
    }
}
