//! Routes: which rules a request is under.

use std::cmp::Ordering;
use std::sync::Arc;

use hapax_core::policy::{KeySource, Policy};
use http::Method;

use super::pattern::{Pattern, Segment, canonical, decode_value, forgiving};
use super::raw::Origin;
use super::show::Shown;

/// The name of the route of all requests that match no other.
pub(crate) const DEFAULT_ROUTE: &str = "default";

/// A route with its rules.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its `match` as written, or [`DEFAULT_ROUTE`]. A label of metrics.
    pub(crate) name: Arc<str>,
    /// Its rules.
    pub(crate) policy: Arc<Policy>,
    /// Where it is written.
    pub(crate) origin: Origin,
    /// Every rule as text, with its origin.
    pub(crate) settings: Vec<Shown>,
    pattern: Option<Pattern>,
    own_names: Vec<String>,
    /// The parameters that are places of the key, or that a probe names.
    key_parameters: Vec<Arc<str>>,
}

impl Route {
    /// A route. `pattern` is `None` for the default route only.
    pub(crate) fn new(
        name: String,
        policy: Policy,
        origin: Origin,
        settings: Vec<Shown>,
        pattern: Option<Pattern>,
    ) -> Self {
        let key_parameters = policy.key_from.iter().filter_map(|source| match source {
            KeySource::Path(name) => Some(Arc::from(name.as_str())),
            KeySource::Header(_) | KeySource::Json(_) | KeySource::Query(_) => None,
        });
        let mut key_parameters: Vec<Arc<str>> = key_parameters.collect();
        let probe = policy.probe();
        for name in probe.iter().flat_map(|probe| probe.names()) {
            if name != hapax_core::probe::KEY
                && !key_parameters.iter().any(|known| **known == *name)
            {
                key_parameters.push(name.into());
            }
        }
        Self {
            key_parameters,
            name: name.into(),
            policy: Arc::new(policy),
            origin,
            settings,
            pattern,
            own_names: Vec::new(),
        }
    }

    /// The same route, knowing which of its rules it has itself.
    pub(crate) fn with_own(mut self, names: Vec<String>) -> Self {
        self.own_names = names;
        self
    }

    /// The rules that the route has itself; all others it inherits.
    pub(crate) fn own_names(&self) -> &[String] {
        &self.own_names
    }

    /// The values of the key's parameters in a canonical path that the route matched.
    fn parameters(&self, path: &str) -> Vec<(Arc<str>, String)> {
        if self.key_parameters.is_empty() {
            return Vec::new();
        }
        let segments = self.pattern.iter().flat_map(|pattern| &pattern.segments);
        let mut values = Vec::with_capacity(self.key_parameters.len());
        let mut rest = path.strip_prefix('/').unwrap_or(path);
        for segment in segments {
            let (first, tail) = rest.split_once('/').unwrap_or((rest, ""));
            let value = match segment {
                Segment::Literal(_) => None,
                Segment::Parameter { prefix, suffix, .. } => {
                    first.get(prefix.len()..first.len().saturating_sub(suffix.len()))
                }
                Segment::Rest(_) => Some(rest),
            };
            let wanted = |name: &&Arc<str>| segment.parameter() == Some(name.as_ref());
            if let (Some(name), Some(value)) = (self.key_parameters.iter().find(wanted), value) {
                values.push((Arc::clone(name), decode_value(value)));
            }
            rest = tail;
        }
        values
    }
}

/// What [`RouteTable::find`] found.
#[derive(Debug, Clone)]
pub(crate) struct Matched {
    /// The route.
    pub(crate) route: Arc<Route>,
    /// The path parameters that the route takes the key from (`path:NAME`) or that its probe names, with their
    /// percent-decoded values. Empty, without an allocation, on all other routes.
    pub(crate) params: Vec<(Arc<str>, String)>,
}

/// All routes. Finding one costs a walk along the path's segments.
#[derive(Debug)]
pub(crate) struct RouteTable {
    default: Arc<Route>,
    written: Vec<Arc<Route>>,
    root: Node,
}

impl RouteTable {
    /// A table with the default route only.
    pub(crate) fn new(default: Route) -> Self {
        Self {
            default: Arc::new(default),
            written: Vec::new(),
            root: Node::default(),
        }
    }

    /// Adds a route, unless one that matches alike is there: then that one is returned.
    pub(crate) fn insert(&mut self, route: Route) -> Result<(), Arc<Route>> {
        let route = Arc::new(route);
        let Some(pattern) = &route.pattern else {
            return Err(Arc::clone(&self.default));
        };
        self.root.insert(&pattern.segments, &route)?;
        self.written.push(route);
        Ok(())
    }

    /// The rules of the route with this name, when there is one.
    pub(crate) fn policy_of(&self, name: &str) -> Option<Arc<Policy>> {
        let route = self.iter().find(|route| *route.name == *name);
        route.map(|route| Arc::clone(&route.policy))
    }

    /// The route of a request, by its path as received, without the query.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Matched {
        if self.written.is_empty() {
            return self.unmatched();
        }
        let plain = canonical(path);
        if let Some(matched) = self.find_canonical(method, &plain) {
            return matched;
        }
        forgiving(path)
            .and_then(|path| self.find_canonical(method, &path))
            .unwrap_or_else(|| self.unmatched())
    }

    /// The route of requests that match no other.
    #[cfg(test)]
    pub(crate) fn default_route(&self) -> &Arc<Route> {
        &self.default
    }

    /// The default route, then all others in the order of the file.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        std::iter::once(&self.default).chain(&self.written)
    }

    fn find_canonical(&self, method: &Method, path: &str) -> Option<Matched> {
        let rest = path.strip_prefix('/')?;
        let rest = Some(rest).filter(|rest| !rest.is_empty());
        let route = self.root.find(rest, method)?;
        Some(Matched {
            params: route.parameters(path),
            route: Arc::clone(route),
        })
    }

    fn unmatched(&self) -> Matched {
        Matched {
            route: Arc::clone(&self.default),
            params: Vec::new(),
        }
    }
}

/// The routes that share the segments up to here. A walk visits a node at most once, and is no
/// deeper than the longest pattern.
#[derive(Debug, Default)]
struct Node {
    /// By their text, case apart.
    literals: Vec<(String, Node)>,
    /// Parameters with text around them, the longest text first.
    affixed: Vec<(Affix, Node)>,
    parameter: Option<Box<Node>>,
    ending: Leaf,
    rest: Leaf,
}

#[derive(Debug)]
struct Affix {
    prefix: String,
    suffix: String,
}

/// The routes of one path, by method.
#[derive(Debug, Default)]
struct Leaf {
    exact: Vec<(Method, Arc<Route>)>,
    any: Option<Arc<Route>>,
}

impl Node {
    fn insert(&mut self, segments: &[Segment], route: &Arc<Route>) -> Result<(), Arc<Route>> {
        let Some((first, tail)) = segments.split_first() else {
            return self.ending.insert(route);
        };
        match first {
            Segment::Literal(text) => {
                let text = text.to_ascii_lowercase();
                child(&mut self.literals, text, |a, b| a.cmp(b)).insert(tail, route)
            }
            Segment::Parameter { prefix, suffix, .. } if prefix.len() + suffix.len() > 0 => {
                let prefix = prefix.to_ascii_lowercase();
                let suffix = suffix.to_ascii_lowercase();
                let affix = Affix { prefix, suffix };
                child(&mut self.affixed, affix, Affix::order).insert(tail, route)
            }
            Segment::Parameter { .. } => {
                let node = self.parameter.get_or_insert_default();
                node.insert(tail, route)
            }
            Segment::Rest(_) => self.rest.insert(route),
        }
    }

    /// Finds the most specific route; `path` is `None` at the path's end.
    fn find(&self, path: Option<&str>, method: &Method) -> Option<&Arc<Route>> {
        let Some(path) = path else {
            return self.ending.find(method).or_else(|| self.rest.find(method));
        };
        let (first, tail) = match path.split_once('/') {
            Some((first, tail)) => (first, Some(tail)),
            None => (path, None),
        };
        let literal = self
            .literals
            .binary_search_by(|(text, _)| compare_folded(text, first))
            .ok()
            .and_then(|index| self.literals.get(index));
        let affixed = self.affixed.iter().filter(|(affix, _)| affix.fits(first));
        literal
            .map(|(_, node)| node)
            .into_iter()
            .chain(affixed.map(|(_, node)| node))
            .chain(self.parameter.as_deref())
            .find_map(|node| node.find(tail, method))
            .or_else(|| self.rest.find(method))
    }
}

impl Leaf {
    fn insert(&mut self, route: &Arc<Route>) -> Result<(), Arc<Route>> {
        let method = route
            .pattern
            .as_ref()
            .and_then(|pattern| pattern.method.clone());
        let taken = match &method {
            Some(method) => self.exact.iter().find(|(other, _)| other == method),
            None => None,
        };
        if let Some(other) = taken.map(|(_, other)| other) {
            return Err(Arc::clone(other));
        }
        match (method, &self.any) {
            (Some(method), _) => self.exact.push((method, Arc::clone(route))),
            (None, Some(other)) => return Err(Arc::clone(other)),
            (None, None) => self.any = Some(Arc::clone(route)),
        }
        Ok(())
    }

    fn find(&self, method: &Method) -> Option<&Arc<Route>> {
        let exact = self.exact.iter().find(|(other, _)| other == method);
        exact.map(|(_, route)| route).or(self.any.as_ref())
    }
}

impl Affix {
    fn order(a: &Self, b: &Self) -> Ordering {
        let length = |affix: &Self| affix.prefix.len() + affix.suffix.len();
        length(b)
            .cmp(&length(a))
            .then_with(|| b.prefix.cmp(&a.prefix))
            .then_with(|| b.suffix.cmp(&a.suffix))
    }

    /// Whether a segment has the text around a parameter that is not empty.
    fn fits(&self, segment: &str) -> bool {
        let (prefix, suffix) = (self.prefix.len(), self.suffix.len());
        let Some(end) = segment
            .len()
            .checked_sub(suffix)
            .filter(|end| *end > prefix)
        else {
            return false;
        };
        let folded = |part: Option<&str>, text: &str| {
            part.is_some_and(|part| part.eq_ignore_ascii_case(text))
        };
        folded(segment.get(..prefix), &self.prefix) && folded(segment.get(end..), &self.suffix)
    }
}

/// The child under `key` of a sorted list, made when it is not there.
fn child<K>(
    children: &mut Vec<(K, Node)>,
    key: K,
    order: impl Fn(&K, &K) -> Ordering,
) -> &mut Node {
    let found = children.binary_search_by(|(other, _)| order(other, &key));
    let index = match found {
        Ok(index) => index,
        Err(index) => {
            children.insert(index, (key, Node::default()));
            index
        }
    };
    #[allow(
        clippy::indexing_slicing,
        reason = "the search found this index, or the insertion made it"
    )]
    &mut children[index].1
}

/// Orders `text`, in small letters, against a segment in any.
fn compare_folded(text: &str, segment: &str) -> Ordering {
    let folded = segment.bytes().map(|byte| byte.to_ascii_lowercase());
    text.bytes().cmp(folded)
}
