//! hapax-tower
