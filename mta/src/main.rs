//! tradewind-mta

fn main() {}
