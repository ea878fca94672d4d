//! The description of the operators' API, generated from the code that answers.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use utoipa::openapi::RefOr;

use super::{actions, bulk, events, figures, journal, records};

const JSON: &str = "application/json";
const PROBLEM_JSON: &str = "application/problem+json";

/// What is described.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "hapax admin API",
        description = "Records of idempotency keys, what became of requests, and what operators do \
                       about outcomes that nobody knows. Refusals are application/problem+json.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        figures::status,
        figures::whoami,
        figures::routes,
        figures::stats,
        events::events,
        records::list,
        records::lookup,
        records::detail,
        actions::resolve,
        actions::release,
        actions::expire,
        bulk::resolve,
        journal::audit,
        journal::reload,
    ),
    modifiers(&BearerTokens, &Problems),
    security((), ("token" = [])),
)]
struct Description;

/// Tokens are needed off loopback, and wherever a token file is configured.
struct BearerTokens;

impl utoipa::Modify for BearerTokens {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", scheme);
    }
}

/// Refusals have a content type of their own.
struct Problems;

impl utoipa::Modify for Problems {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let items = description.paths.paths.values_mut();
        let operations = items.flat_map(|item| [item.get.as_mut(), item.post.as_mut()]);
        for operation in operations.flatten() {
            for (status, response) in &mut operation.responses.responses {
                let RefOr::T(response) = response else {
                    continue;
                };
                if status.starts_with(['4', '5'])
                    && let Some(content) = response.content.swap_remove(JSON)
                {
                    response.content.insert(PROBLEM_JSON.to_owned(), content);
                }
            }
        }
    }
}

/// The description as it is served.
pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// Serves the description.
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(description())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_openapi_3_1_and_has_every_call() {
        let json = serde_json::to_value(description()).expect("JSON");
        assert!(
            json["openapi"]
                .as_str()
                .is_some_and(|v| v.starts_with("3.1"))
        );
        let paths = json["paths"].as_object().expect("paths");
        let mut names: Vec<_> = paths.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "/api/v1/audit",
                "/api/v1/config:reload",
                "/api/v1/events",
                "/api/v1/records",
                "/api/v1/records/{id}",
                "/api/v1/records/{id}:expire",
                "/api/v1/records/{id}:release",
                "/api/v1/records/{id}:resolve",
                "/api/v1/records:lookup",
                "/api/v1/records:resolve",
                "/api/v1/routes",
                "/api/v1/stats",
                "/api/v1/status",
                "/api/v1/whoami",
            ]
        );
    }
}
