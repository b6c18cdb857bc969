//! Rings: rows of a table that take turns, linked through the rows themselves, so that joining, leaving and passing
//! the turn cost the same however many there are.

use crate::slab::Slab;
use crate::types::Lane;

/// A row's neighbours.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    previous: u32,
    next: u32,
}

/// A row that may stand in rings, in one for each lane.
pub(crate) trait Linked {
    fn link(&mut self, lane: Lane) -> &mut Option<Link>;
}

/// Lets a row take turns, behind all others. `head` is whose turn it is.
pub(crate) fn join<T: Linked>(rows: &mut Slab<T>, head: &mut Option<u32>, lane: Lane, key: u32) {
    let link = match *head {
        None => {
            *head = Some(key);
            Link { previous: key, next: key }
        }
        Some(first) => {
            let last = link_of(rows, lane, first).map_or(first, |link| link.previous);
            change(rows, lane, last, |link| link.next = key);
            change(rows, lane, first, |link| link.previous = key);
            Link { previous: last, next: first }
        }
    };
    if let Some(row) = rows.get_mut(key) {
        *row.link(lane) = Some(link);
    }
}

/// Takes a row out, wherever it stands.
pub(crate) fn leave<T: Linked>(rows: &mut Slab<T>, head: &mut Option<u32>, lane: Lane, key: u32) {
    let Some(link) = rows.get_mut(key).and_then(|row| row.link(lane).take()) else { return };
    if link.next == key {
        *head = None;
        return;
    }
    change(rows, lane, link.previous, |other| other.next = link.next);
    change(rows, lane, link.next, |other| other.previous = link.previous);
    if *head == Some(key) {
        *head = Some(link.next);
    }
}

/// The turn passes on.
pub(crate) fn pass<T: Linked>(rows: &mut Slab<T>, head: &mut Option<u32>, lane: Lane) {
    if let Some(link) = head.and_then(|key| link_of(rows, lane, key)) {
        *head = Some(link.next);
    }
}

/// All of a ring, in the order of their turns.
pub(crate) fn all<T: Linked>(rows: &mut Slab<T>, head: Option<u32>, lane: Lane) -> Vec<u32> {
    let (mut found, mut at) = (Vec::new(), head);
    while let Some(key) = at {
        found.push(key);
        at = link_of(rows, lane, key).map(|link| link.next).filter(|next| Some(*next) != head);
    }
    found
}

fn link_of<T: Linked>(rows: &mut Slab<T>, lane: Lane, key: u32) -> Option<Link> {
    *rows.get_mut(key)?.link(lane)
}

fn change<T: Linked>(rows: &mut Slab<T>, lane: Lane, key: u32, change: impl FnOnce(&mut Link)) {
    if let Some(link) = rows.get_mut(key).and_then(|row| row.link(lane).as_mut()) {
        change(link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(Option<Link>);

    impl Linked for Row {
        fn link(&mut self, _: Lane) -> &mut Option<Link> {
            &mut self.0
        }
    }

    #[test]
    fn rows_take_turns_join_at_the_end_and_leave_from_anywhere() {
        let (mut rows, mut head, lane) = (Slab::new(), None, Lane::Notice);
        for key in 0..4 {
            assert_eq!(rows.insert(Row(None)), key);
            join(&mut rows, &mut head, lane, key);
        }
        assert_eq!(all(&mut rows, head, lane), [0, 1, 2, 3]);
        pass(&mut rows, &mut head, lane);
        assert_eq!(all(&mut rows, head, lane), [1, 2, 3, 0]);
        leave(&mut rows, &mut head, lane, 1);
        leave(&mut rows, &mut head, lane, 3);
        leave(&mut rows, &mut head, lane, 3);
        assert_eq!(all(&mut rows, head, lane), [2, 0]);
        join(&mut rows, &mut head, lane, 1);
        assert_eq!(all(&mut rows, head, lane), [2, 0, 1]);
        for key in [0, 1, 2] {
            leave(&mut rows, &mut head, lane, key);
        }
        assert_eq!(head, None);
        assert!(all(&mut rows, head, lane).is_empty());
    }
}
