//! What a request may say: order ids, payloads and prices, parsed into types at the edge.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The currency of every amount.
pub(crate) const CURRENCY: &str = "EUR";

/// The most pieces of one order.
pub(crate) const MAX_QUANTITY: i64 = 100;

/// The longest order id, in characters.
pub(crate) const MAX_ID_LEN: usize = 64;

/// Something that can be ordered.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct Item {
    /// Its name, by which it is ordered.
    #[schema(example = "a lamp")]
    pub(crate) item: &'static str,
    /// What one piece costs, in minor units: 4900 are 49 €. Whole numbers, because money is
    /// counted and not measured.
    #[schema(example = 4900)]
    pub(crate) price: i64,
    /// The currency of the price.
    #[schema(example = "EUR")]
    pub(crate) currency: &'static str,
}

/// What there is to order.
pub(crate) const CATALOGUE: [Item; 3] = [
    item("a lamp", 4_900),
    item("a chair", 12_900),
    item("a table", 34_900),
];

const fn item(item: &'static str, price: i64) -> Item {
    Item {
        item,
        price,
        currency: CURRENCY,
    }
}

/// An order's id: 1 to [`MAX_ID_LEN`] letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OrderId(String);

impl OrderId {
    /// Takes the client's id; `None` when it is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_id = (1..=MAX_ID_LEN).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        is_id.then(|| Self(text.to_owned()))
    }

    /// A new id of 128 random bits; `None` when the system has no random numbers.
    pub(crate) fn random() -> Option<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).ok()?;
        Some(Self(format!("{:032x}", u128::from_be_bytes(bytes))))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The payload of an order as a client sends it. Members that nobody knows are refused: a
/// misspelt `quantity` must not order one piece.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewOrder {
    /// The name of an item of the catalogue.
    #[schema(example = "a lamp")]
    item: String,
    /// How many pieces.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 100, default = 1, example = 1)]
    quantity: i64,
}

const fn one() -> i64 {
    1
}

/// A payload that means something: an item that exists, a quantity within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Purchase {
    pub(crate) item: &'static str,
    pub(crate) quantity: i64,
    /// In minor units. The shop's price, never the client's.
    pub(crate) total: i64,
}

/// Why a payload means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PurchaseError {
    #[error("there is no such item; GET /catalogue lists them")]
    Item,
    #[error("quantity is a whole number from 1 to 100")]
    Quantity,
}

impl NewOrder {
    /// Checks the payload against the catalogue.
    pub(crate) fn purchase(&self) -> Result<Purchase, PurchaseError> {
        let found = CATALOGUE.iter().find(|known| known.item == self.item);
        let Item { item, price, .. } = *found.ok_or(PurchaseError::Item)?;
        if !(1..=MAX_QUANTITY).contains(&self.quantity) {
            return Err(PurchaseError::Quantity);
        }
        Ok(Purchase {
            item,
            quantity: self.quantity,
            total: price * self.quantity,
        })
    }
}

/// An order as it is stored and answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Order {
    /// The order's id.
    #[schema(example = "order-1")]
    pub(crate) id: String,
    /// The item's name.
    #[schema(example = "a lamp")]
    pub(crate) item: String,
    /// How many pieces.
    #[schema(example = 1)]
    pub(crate) quantity: i64,
    /// What was charged, in minor units.
    #[schema(example = 4900)]
    pub(crate) total: i64,
    /// The currency of the total.
    #[schema(example = "EUR")]
    pub(crate) currency: &'static str,
    /// Whether the order was cancelled. Such an order is not shown: its id answers 410.
    #[serde(skip)]
    pub(crate) is_cancelled: bool,
}

impl Order {
    /// An order of `purchase` under `id`.
    pub(crate) fn new(id: &OrderId, purchase: &Purchase) -> Self {
        Self {
            id: id.as_str().to_owned(),
            item: purchase.item.to_owned(),
            quantity: purchase.quantity,
            total: purchase.total,
            currency: CURRENCY,
            is_cancelled: false,
        }
    }

    /// Whether `purchase` asks for this very order. The price does not count: a repeat must find
    /// its order after the price has changed.
    pub(crate) fn is_of(&self, purchase: &Purchase) -> bool {
        self.item == purchase.item && self.quantity == purchase.quantity
    }
}

/// A page of orders.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderList {
    /// The newest first.
    pub(crate) orders: Vec<Order>,
}

/// What the shop has done to its customers' money: the honest count of effects.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ledger {
    /// How many charges there were.
    pub(crate) charges: i64,
    /// How many refunds there were.
    pub(crate) refunds: i64,
    /// Charges less refunds, in minor units.
    pub(crate) total: i64,
    /// The currency of every amount.
    #[schema(example = "EUR")]
    pub(crate) currency: &'static str,
    /// The newest entries, in the order in which they were made.
    pub(crate) entries: Vec<Entry>,
}

/// One movement of money.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Entry {
    /// Whose.
    pub(crate) order: String,
    /// `charge` or `refund`.
    #[schema(example = "charge")]
    pub(crate) kind: String,
    /// In minor units; a refund is negative.
    pub(crate) amount: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_id_is_short_and_plain() {
        let longest = "a".repeat(MAX_ID_LEN);
        for id in ["a", "order-1", "A_9", &longest] {
            assert_eq!(OrderId::parse(id).expect("an id").as_str(), id);
        }
        for id in ["", "a b", "a/b", "ä", "a.b", &format!("{longest}a")] {
            assert_eq!(OrderId::parse(id), None, "{id}");
        }
    }

    #[test]
    fn a_total_is_the_shops_price_times_the_quantity() {
        let of = |item: &str, quantity| {
            let item = item.to_owned();
            NewOrder { item, quantity }.purchase()
        };
        assert_eq!(of("a lamp", 3).expect("it can be bought").total, 14_700);
        assert_eq!(of("a lamp", 100).expect("it can be bought").total, 490_000);
        assert_eq!(of("a yacht", 1), Err(PurchaseError::Item));
        for quantity in [0, -1, 101, i64::MAX, i64::MIN] {
            assert_eq!(of("a lamp", quantity), Err(PurchaseError::Quantity));
        }
    }
}
