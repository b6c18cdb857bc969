//! Criterion benches of the parts that a message passes: `cargo bench -p tradewind-benches`.
//!
//! Each group has a `floor`: the least that any program would have to do for the same result (copy the
//! octets, make the RSA operation, flush the disk). The distance to it is what is ours to improve.
//! Figures of whole daemons, beside Postfix, come from `tradewind-loadtest report`.
