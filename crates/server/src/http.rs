//! HTTP without the routes: connections, who asks, what is let in, bodies, errors.

pub mod admit;
pub mod body;
pub mod caller;
pub mod connection;
pub mod error;
pub mod listen;
mod patience;
pub mod segment;
pub mod tls;
pub mod token;
pub mod whole;

pub use caller::Caller;
pub use error::ApiError;
pub use segment::Segment;
