//! Scripted peers, load, and the measurements made with them.
