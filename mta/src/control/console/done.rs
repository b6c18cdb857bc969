//! What was done, in words: a form leads back to its page with a word in the address, and the page says what it stands for.
//!
//! The address may be anybody's, so a page says nothing but these sentences.

use super::frame::Place;

/// The name of the word in the address.
pub(super) const NAME: &str = "done";

/// What a page says; nothing to a word that no form of that place leads to.
pub(super) fn says(place: Place, word: &str) -> Option<&'static str> {
    Some(match (place, word) {
        (Place::Warmup, "set") => "The stage is set.",
        (Place::Warmup, "pin") => "The allowance is pinned.",
        (Place::Warmup, "unpin") => "The allowance is no longer pinned: the plan's holds.",
        (Place::Warmup, "pause") => "Warmup is paused here: no mail goes from this source to this provider.",
        (Place::Warmup, "resume") => "Warmup goes on where it was.",
        (Place::Warmup, "skip") => "Went on to the next stage.",
        (Place::Warmup, "rewind") => "Went back by stages.",
        (Place::Warmup, "complaints") => "The complaints are counted.",
        (Place::Plans, "applied") => "The plan is applied and holds from now on.",
        (Place::Plans, "undone") => "The last change is undone: what was there before holds again.",
        (Place::Sites, "applied") => "The shaping is applied and holds from now on.",
        (Place::Sites, "undone") => "The last change is undone: what was there before holds again.",
        (Place::Queue, "hold") => "It is held: it is not tried until it is released.",
        (Place::Queue, "release") => "It is released and goes on.",
        (Place::Queue, "cancel") => "It is cancelled and leaves the queue.",
        (Place::Queue, "flush") => "What waited for its time is due now.",
        (Place::Queue, "unchanged") => "Nothing had to be changed.",
        (Place::Queue, "in-flight") => "Nothing was changed: it is in flight, and what becomes of that counts.",
        (Place::Actions, "cancel") => "The action is ended.",
        (Place::Actions, "extend") => "The action lasts longer now.",
        (Place::Members, "suspend") => "The member is suspended: its mail is refused from now on.",
        (Place::Members, "resume") => "The member is resumed: its mail is accepted again, if labels allow it.",
        (Place::Members, "revoked") => "The password is revoked: nobody can sign in with it any more.",
        _ => return None,
    })
}
