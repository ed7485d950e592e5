//! One module a command.

pub mod bench;
pub mod caption;
pub mod chat;
pub mod convert;
pub mod demo;
pub mod doctor;
pub mod generate;
pub mod inspect;
pub mod plan;
pub mod run;
pub mod serve;
pub mod stream;
pub mod validate;
