//! Buys N lamps, 16 at a time, each once: `buyer URL FOLDER N`. Survives being killed: an outbox, and a book of orders.

use std::collections::HashSet;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hapax_client::outbox::{IntentError, Outbox, Recorder};
use hapax_client::reqwest::SafeClient;
use hapax_client::{BoxError, Config};
use http::{Request, Response};
use serde_json::Value;

/// How often an outcome may stay unknown.
const ROUNDS: u32 = 20;

/// A line an order: the intent's name and the order's id.
struct Book(Mutex<File>);

impl Recorder for Book {
    fn record(&self, name: &str, answer: &Response<Bytes>) -> Result<(), BoxError> {
        let order: Value = serde_json::from_slice(answer.body())?;
        let id = order.get("id").and_then(Value::as_str).ok_or("no order")?;
        let line = format!("{name} {id}\n");
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(file.write_all(line.as_bytes())?)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().ok_or("URL FOLDER N");
    let (url, folder, count) = (argument()?, argument()?, argument()?.parse::<usize>()?);
    let folder = Path::new(&folder);
    let path = folder.join("book");
    let book = OpenOptions::new().append(true).create(true).open(&path)?;
    let sender = Arc::new(SafeClient::new(
        reqwest::Client::builder().no_proxy().build()?,
        Config::default(),
    ));
    let (outbox, _) = Outbox::open(&folder.join("outbox"))?
        .with_recorder(Arc::new(Book(Mutex::new(book))))
        .resolve(&*sender)
        .await;
    // Read after the outbox is resolved: what an earlier process left is in it by now, or pending.
    let text = std::fs::read_to_string(&path)?;
    let known: HashSet<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let left: Vec<usize> = (0..count)
        .filter(|number| !known.contains(number.to_string().as_str()))
        .collect();
    let (outbox, left, url) = (Arc::new(outbox), Arc::new(Mutex::new(left)), Arc::new(url));
    let buyers: Vec<_> = (0..16)
        .map(|_| {
            let (outbox, sender) = (Arc::clone(&outbox), Arc::clone(&sender));
            let (left, url) = (Arc::clone(&left), Arc::clone(&url));
            tokio::spawn(async move {
                while let Some(number) = next(&left) {
                    buy(&outbox, &sender, &url, number).await?;
                }
                Ok::<_, BoxError>(())
            })
        })
        .collect();
    for buyer in buyers {
        buyer.await?.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn next(left: &Mutex<Vec<usize>>) -> Option<usize> {
    left.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

async fn buy(
    outbox: &Outbox,
    sender: &SafeClient,
    url: &str,
    number: usize,
) -> Result<(), BoxError> {
    let order = format!("{{\"item\":\"a lamp\",\"quantity\":{}}}", 1 + number % 100);
    let request = Request::post(url)
        .header("content-type", "application/json")
        .body(Bytes::from(order))?;
    for _ in 0..ROUNDS {
        match outbox
            .send(&number.to_string(), request.clone(), sender)
            .await
        {
            Ok(_) => return Ok(()),
            Err(IntentError::Unknown(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(format!("order {number} stays unknown").into())
}
