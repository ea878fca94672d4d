//! A check of an operation of an OpenAPI document, fetched from the target itself.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::Duration;

use hapax_check::{CheckError, Fault, OpenApi, Options, Outcome, check};
use serde_json::json;

use crate::flawed::{Flaw, Server};

fn document() -> String {
    json!({ "openapi": "3.1.0", "paths": { "/orders": { "post": {
        "operationId": "createOrder",
        "parameters": [{ "name": "Idempotency-Key", "in": "header", "required": true, "schema": { "type": "string" } }],
        "requestBody": { "content": { "application/json": { "schema": {
            "required": ["quantity"], "properties": { "quantity": { "type": "integer", "minimum": 1 } }
        } } } }
    } } } })
    .to_string()
}

/// Serves the document at every path.
fn serve_document() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/openapi.json", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut seen = Vec::new();
            let mut buffer = [0; 4096];
            while !seen.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(n) if n > 0 => seen.extend_from_slice(&buffer[..n]),
                    _ => break,
                }
            }
            let body = document();
            drop(
                stream.write_all(
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    )
                    .as_bytes(),
                ),
            );
        }
    });
    url
}

fn options(server: &Server, location: String, operation: &str) -> Options {
    let mut options = Options::new(server.url.clone(), 5);
    options.faults = vec![Fault::ReplayFidelity, Fault::OtherPayload, Fault::NoKey];
    options.count_with = Some(format!("{}/count", server.url));
    options.openapi = Some(OpenApi {
        location,
        text: None,
        operation: operation.into(),
    });
    options
}

#[tokio::test]
async fn an_operation_is_checked_as_its_document_describes_it() {
    let url = serve_document();
    let sound = Server::start(Flaw::None, Duration::ZERO);
    let report = check(&options(&sound, url.clone(), "createOrder"), &|_| {})
        .await
        .unwrap();
    assert_eq!(report.outcome(), Outcome::Clean, "{}", report.to_json());
    // The document says that the key is required, and this server does not mind.
    let lax = Server::start(Flaw::NeedsNoKey, Duration::ZERO);
    let report = check(&options(&lax, url, "createOrder"), &|_| {})
        .await
        .unwrap();
    assert_eq!(report.outcome(), Outcome::Finding);
    assert!(report.to_json().contains("missing-key-is-refused"));
}

#[tokio::test]
async fn an_operation_that_is_not_there_is_a_mistake_of_the_command_line() {
    let server = Server::start(Flaw::None, Duration::ZERO);
    let error = check(&options(&server, serve_document(), "dropOrder"), &|_| {})
        .await
        .unwrap_err();
    assert!(
        matches!(error, CheckError::OpenApi(..)) && error.is_usage(),
        "{error}"
    );
    assert!(error.to_string().contains("createOrder"), "{error}");
    let remote = options(
        &server,
        "http://192.0.2.1/openapi.json".into(),
        "createOrder",
    );
    let error = check(&remote, &|_| {}).await.unwrap_err();
    assert!(matches!(error, CheckError::Remote(..)), "{error}");
}
