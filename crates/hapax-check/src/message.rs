//! A request as it goes over the wire.

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Message {
    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The same request with a field replaced, added, or removed where there is no value.
    pub(crate) fn with_field(&self, name: &str, value: Option<&str>) -> Self {
        let mut changed = self.clone();
        changed
            .fields
            .retain(|(field, _)| !field.eq_ignore_ascii_case(name));
        if let Some(value) = value {
            changed.fields.push((name.to_owned(), value.to_owned()));
        }
        changed
    }

    /// Method, target and fields, up to the empty line. One request a connection.
    pub(crate) fn head(&self, authority: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let mut field = |name: &str, value: &str| {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        };
        if self.field("host").is_none() {
            field("Host", authority);
        }
        for (name, value) in &self.fields {
            field(name, value);
        }
        if !self.body.is_empty() || ["POST", "PUT", "PATCH"].contains(&self.method.as_str()) {
            field("Content-Length", &self.body.len().to_string());
        }
        field("Connection", "close");
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// What is wrong with it: nothing that would split or smuggle a message is ever sent.
    pub(crate) fn fault(&self) -> Option<String> {
        let is_token = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
        };
        if !is_token(&self.method) {
            return Some(format!("{:?} is no method", self.method));
        }
        if !self.target.starts_with('/') || !self.target.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Some(format!(
                "{:?} is no target; begin with / and encode spaces",
                self.target
            ));
        }
        let reserved = [
            "content-length",
            "transfer-encoding",
            "connection",
            "expect",
            "upgrade",
        ];
        self.fields.iter().find_map(|(name, value)| {
            if !is_token(name) {
                return Some(format!("{name:?} is no field name"));
            }
            if reserved.contains(&name.to_ascii_lowercase().as_str()) {
                return Some(format!("{name} is set by the checker"));
            }
            value
                .chars()
                .any(|c| c.is_control() && c != '\t')
                .then(|| format!("the value of {name} has control characters"))
        })
    }
}
