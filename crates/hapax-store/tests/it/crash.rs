//! kill -9 and power cuts: nothing acknowledged is lost.
