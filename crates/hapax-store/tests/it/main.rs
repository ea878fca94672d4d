//! The stores against their contract, and against crashes.

mod contract;
