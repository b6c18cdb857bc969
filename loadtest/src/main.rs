//! tradewind-loadtest

fn main() {}
