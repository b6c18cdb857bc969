//! Clock, sockets, TLS, disk, DNS, dice.
