//! The guarantees by name, and what in a history and an effect log shows each of them.

use std::fmt;

macro_rules! guarantees {
    ($($id:ident = $number:literal $name:literal, $evidence:literal;)*) => {
        /// A guarantee of docs/guarantees.md.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Guarantee {
            $(#[doc = $name] $id,)*
        }

        impl Guarantee {
            /// All of them, in their order.
            pub const ALL: [Self; 16] = [$(Self::$id),*];

            /// Its number.
            pub fn number(self) -> u8 {
                match self { $(Self::$id => $number,)* }
            }

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$id => $name,)* }
            }

            /// What the judge takes for evidence.
            pub fn evidence(self) -> &'static str {
                match self { $(Self::$id => $evidence,)* }
            }
        }
    };
}

guarantees! {
    OneEffect = 1 "one effect",
        "two effects of one record less than a retention apart";
    OneAnswer = 2 "one answer",
        "two final answers of one record that differ in status, kept fields or content, on any node";
    NoPhantom = 3 "no phantom",
        "a success without an effect before it, with content that the upstream did not answer, or a replay of nothing";
    NoLoss = 4 "no loss",
        "an attempt that began after a client had the final answer, and was told that there is none";
    ClaimFirst = 5 "claim first",
        "an effect that no attempt can have caused, because each was refused or came later; that the claim is durable first \
         shows in the second effect after a power cut, and step by step in the simulation";
    OwnerOnly = 6 "owner only",
        "two attempts that both say that they executed the record; refused writes show as a figure that a floor asks for";
    OtherPayload = 7 "other payload",
        "another payload that had an effect, an answer, or a refusal other than that of a reused key";
    Isolation = 8 "isolation",
        "content, a replay, a conflict or a mismatch that can only come from the same key in another scope";
    HonestUnknown = 9 "honest unknown",
        "an unknown outcome of a record that no fault has touched, or an effect where nothing was said to have been sent";
    Liveness = 10 "liveness",
        "an attempt that never ends, a client that gave up waiting without a fault, and a conflict with nobody";
    Retention = 11 "retention removes only what is settled",
        "a second effect less than a retention after the record was said to be outstanding or unknown";
    ClientLeaves = 12 "a client that leaves changes nothing",
        "an unknown outcome of a record to which nothing happened but clients that left or cut their request";
    Bounds = 13 "bounds",
        "a figure above its bound: memory, connections, waiters, bytes on disk";
    FailClosed = 14 "fail closed",
        "an effect of a request that was only ever refused because the store could not be asked";
    Damage = 15 "a damaged record is an alarm",
        "any of G1 to G4 broken for a record whose store was damaged before";
    Told = 16 "every change of state is an event",
        "fewer executions or replays in the figures made of events than clients saw";
}

impl Guarantee {
    /// Its position in [`Guarantee::ALL`].
    pub(super) fn position(self) -> usize {
        usize::from(self.number()) - 1
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "G{} {}", self.number(), self.name())
    }
}
