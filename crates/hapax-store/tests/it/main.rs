//! The stores against their contract, and against crashes.

mod contract;
mod crash;
mod damage;
mod full;
mod restart;
mod support;
