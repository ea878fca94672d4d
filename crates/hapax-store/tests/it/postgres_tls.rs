//! TLS to PostgreSQL: encrypted, and with whom it should be.

use hapax_store::{PostgresError, PostgresOptions, PostgresStore, migrate_postgres};
use rcgen::generate_simple_self_signed;

use crate::postgres::connect;
use crate::servers::PostgresServer;

/// A server that listens at a port of 127.0.0.1, with a certificate for `name`; its URL with
/// these parameters.
fn encrypted(server: &mut PostgresServer, name: &str) -> (String, String) {
    let made = generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let certificate = made.cert.pem();
    let in_file = server.keep("server.crt", &certificate);
    let key = server.keep("server.key", &made.signing_key.serialize_pem());
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("a port").port();
    drop(free);
    server.crash();
    server.go_on(&[
        "listen_addresses=127.0.0.1",
        &format!("port={port}"),
        "ssl=on",
        &format!("ssl_cert_file={}", in_file.display()),
        &format!("ssl_key_file={}", key.display()),
    ]);
    let url = format!("postgres://test@127.0.0.1:{port}/postgres");
    (url, certificate)
}

async fn refused(url: &str) -> PostgresError {
    let refused = PostgresStore::open(url, PostgresOptions::default()).await;
    refused.expect_err("it is not whom it should be")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_is_encrypted_to_a_server_whose_certificate_is_trusted_and_for_its_name() {
    let mut server = PostgresServer::start();
    // Until it runs it does not hear that it should end.
    drop(connect(&server.url()).await);
    let (url, certificate) = encrypted(&mut server, "127.0.0.1");
    let client = connect(&url).await;
    let roots = server.keep("roots.pem", &certificate);
    let trusting = format!("sslrootcert={}", roots.display());
    let options = PostgresOptions::default();
    for mode in ["require", "verify-full"] {
        let url = format!("{url}?sslmode={mode}&{trusting}");
        let migrated = migrate_postgres(&url, &options).await;
        migrated.expect("it can be migrated");
        let store = PostgresStore::open(&url, options.clone()).await;
        let store = store.expect("it is trusted");
        crate::support::claim(&store, u64::from(mode == "require")).await;
        let select = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
            WHERE application_name = 'hapax'";
        let row = client.query_one(select, &[]).await.expect("a row");
        assert_eq!(row.get::<_, Option<bool>>(0), Some(true), "all of them");
    }
    let other = generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let other = server.keep("other.pem", &other.cert.pem());
    for parameters in [
        format!("sslmode=require&sslrootcert={}", other.display()),
        format!("sslmode=verify-full&sslrootcert={}", other.display()),
        // The system's certificates know nothing of this one either.
        "sslmode=verify-full".to_owned(),
    ] {
        let error = refused(&format!("{url}?{parameters}")).await.to_string();
        assert!(error.contains("certificate"), "{parameters}: {error}");
    }
    let (url, certificate) = encrypted(&mut server, "elsewhere.example");
    drop(connect(&url).await);
    let roots = server.keep("roots.pem", &certificate);
    let error = refused(&format!(
        "{url}?sslmode=require&sslrootcert={}",
        roots.display()
    ))
    .await;
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for_and_so_is_a_missing_file() {
    let server = PostgresServer::start();
    drop(connect(&server.url()).await);
    let error = refused(&format!("{}?sslmode=require", server.url())).await;
    assert!(error.to_string().contains("TLS"), "{error}");
    let error = refused("postgres://127.0.0.1/x?sslmode=require&sslrootcert=/nowhere").await;
    assert!(
        matches!(&error, PostgresError::Certificates(text) if text.contains("/nowhere")),
        "{error}"
    );
}
