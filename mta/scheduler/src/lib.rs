//! What may be sent next, from where, how fast: no IO, no clock.
