//! Policy: who may send, in pure answers.
