//! A check of the double of librknnrt through rknn-rs, a client that this project did not write. The check is the example `rknn_rs_check`:
//! a second program would make `cargo run` ask which one is meant.
