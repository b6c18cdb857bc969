//! The sessions of one ring thread, so that a stop reaches those that wait for their peer.
//!
//! Who idles between two transactions is dismissed at once, who has not begun one yet after [`GRACE`], and who is inside
//! one when the time for that is over.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use host::{Connection, Interrupter};
use tokio::sync::{Notify, watch};

use crate::drain::{Drain, GRACE, reached};

/// Everybody who is here.
#[derive(Default)]
pub struct Roll {
    seats: RefCell<HashMap<u64, Rc<Seat>>>,
    next: Cell<u64>,
    /// What nobody may be any more.
    closed_to: Cell<Option<Phase>>,
    left: Notify,
}

/// What a session is doing; in the order in which they have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It has been inside a transaction and is not.
    Idle,
    /// It has not been inside one yet.
    Fresh,
    /// It is inside one.
    Busy,
}

struct Seat {
    phase: Cell<Phase>,
    interrupter: Interrupter,
}

impl Roll {
    /// Notes a session, until what is returned is dropped.
    pub fn enter(self: &Rc<Self>, connection: &Connection) -> Present {
        let number = self.next.get();
        self.next.set(number + 1);
        let seat = Rc::new(Seat { phase: Cell::new(Phase::Fresh), interrupter: connection.interrupter() });
        self.seats.borrow_mut().insert(number, seat.clone());
        Present { roll: self.clone(), number, seat }
    }

    /// Dismisses sessions as the stop goes on.
    pub async fn drain(self: Rc<Self>, mut draining: watch::Receiver<Drain>) {
        reached(&mut draining, Drain::Finish).await;
        self.dismiss(Phase::Idle);
        let _ = tokio::time::timeout(GRACE, reached(&mut draining, Drain::Over)).await;
        self.dismiss(Phase::Fresh);
        reached(&mut draining, Drain::Over).await;
        self.dismiss(Phase::Busy);
    }

    /// Waits until nobody is left.
    pub async fn empty(&self) {
        while !self.seats.borrow().is_empty() {
            self.left.notified().await;
        }
    }

    fn dismiss(&self, up_to: Phase) {
        self.closed_to.set(Some(up_to));
        self.seats.borrow().values().filter(|seat| seat.phase.get() <= up_to).for_each(|seat| seat.interrupter.interrupt());
    }
}

/// A session that is here.
pub struct Present {
    roll: Rc<Roll>,
    number: u64,
    seat: Rc<Seat>,
}

impl Present {
    /// Tells whether the session is inside a transaction.
    pub fn note(&self, in_transaction: bool) {
        let phase = match (self.seat.phase.get(), in_transaction) {
            (_, true) => Phase::Busy,
            (Phase::Fresh, false) => Phase::Fresh,
            (_, false) => Phase::Idle,
        };
        self.seat.phase.set(phase);
    }

    /// Whether it has to go once it is inside no transaction.
    pub fn is_dismissed(&self) -> bool {
        // Who is busy will be idle next.
        let next = if self.seat.phase.get() == Phase::Busy { Phase::Idle } else { self.seat.phase.get() };
        self.roll.closed_to.get().is_some_and(|closed| next <= closed)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.roll.seats.borrow_mut().remove(&self.number);
        self.roll.left.notify_one();
    }
}
