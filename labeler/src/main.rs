//! tradewind-labeler

fn main() {}
