//! A schema registry: schemas by their id, and the id of a schema.
//!
//! The protocol is that of Confluent's Schema Registry (REST, "Schemas" and "Subjects"), which others speak too.

use std::fs;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tidemill_core::{Clusters, UnknownCluster};
use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::client::REGISTRY_PREFIX;
use super::references;

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// References may refer to others, so deep.
const DEPTH_MAX: usize = 16;
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Why a registry can't be used, or gave no schema.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error(transparent)]
    Cluster(#[from] UnknownCluster),
    #[error(
        "cluster `{0}` has no `schema_registry_url` in the settings; write the address of its schema registry there"
    )]
    NoUrl(String),
    #[error("`{name}` of cluster `{cluster}` can't be used: {why}")]
    Property { cluster: String, name: &'static str, why: String },
    /// It may answer later.
    #[error("schema registry {url} does not answer: {why}")]
    Unavailable { url: String, why: String },
    /// It has answered, and will answer the same again.
    #[error("schema registry {url} says: {why}")]
    Refused { url: String, why: String },
}

/// A client of the registry of one cluster.
pub(crate) struct Registry {
    agent: Agent,
    /// Any of them can answer.
    urls: Vec<String>,
    authorization: Option<String>,
}

impl Registry {
    /// The registry of a cluster of the settings. Asks nothing yet.
    ///
    /// # Errors
    /// When the cluster is unknown, has no registry, or a property of it is wrong.
    pub(crate) fn of(clusters: &Clusters, cluster: &str) -> Result<Self, RegistryError> {
        let properties = clusters.kafka(cluster)?;
        let property = |name: &str| properties.get(&format!("{REGISTRY_PREFIX}{name}")).map(String::as_str);
        let wrong = |name, why: String| RegistryError::Property { cluster: cluster.to_owned(), name, why };
        for name in properties.keys().filter_map(|name| name.strip_prefix(REGISTRY_PREFIX)) {
            if !["url", "basic.auth.user.info", "ssl.ca.location"].contains(&name) {
                let known = "there are schema_registry_url, schema_registry_basic_auth_user_info and schema_registry_ssl_ca_location";
                return Err(wrong(
                    "schema.registry.*",
                    format!("there is no property `{REGISTRY_PREFIX}{name}`; {known}"),
                ));
            }
        }
        let urls: Vec<String> = property("url")
            .unwrap_or_default()
            .split(',')
            .map(|url| url.trim().trim_end_matches('/').to_owned())
            .filter(|url| !url.is_empty())
            .collect();
        if urls.is_empty() {
            return Err(RegistryError::NoUrl(cluster.to_owned()));
        }
        if let Some(url) = urls.iter().find(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            return Err(wrong("schema_registry_url", format!("`{url}` does not begin with http:// or https://")));
        }
        // OpenSSL, which librdkafka needs anyway, and the system's certificates unless others are named.
        let mut tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(RootCerts::PlatformVerifier);
        if let Some(path) = property("ssl.ca.location") {
            let name = "schema_registry_ssl_ca_location";
            let pem = fs::read(path).map_err(|error| wrong(name, format!("{path}: {error}")))?;
            let items: Vec<_> =
                parse_pem(&pem).collect::<Result<_, _>>().map_err(|error| wrong(name, format!("{path}: {error}")))?;
            let authorities: Vec<_> = items
                .into_iter()
                .filter_map(|item| match item {
                    PemItem::Certificate(certificate) => Some(certificate),
                    _ => None,
                })
                .collect();
            if authorities.is_empty() {
                return Err(wrong(name, format!("{path} holds no certificate")));
            }
            tls = tls.root_certs(RootCerts::from(authorities));
        }
        let agent = Agent::config_builder()
            .timeout_global(Some(ANSWER))
            .http_status_as_error(false)
            .user_agent("tidemill")
            .tls_config(tls.build())
            .build()
            .new_agent();
        let authorization = property("basic.auth.user.info").map(|user| format!("Basic {}", STANDARD.encode(user)));
        Ok(Self { agent, urls, authorization })
    }

    /// The Avro schema with that id, as JSON text that needs no other schema. Blocks, up to some seconds for each address.
    ///
    /// # Errors
    /// When nobody answers, or the id is unknown or that of no Avro schema.
    pub(crate) fn schema(&self, id: u32) -> Result<String, RegistryError> {
        let (url, answer) = self.ask(&format!("/schemas/ids/{id}"), None)?;
        let refused = |why: String| RegistryError::Refused { url: url.clone(), why };
        let schema = self.whole(&url, &answer, 0)?;
        match schema {
            Value::Null => Err(refused(format!("the answer for schema {id} holds none"))),
            schema => Ok(schema.to_string()),
        }
    }

    /// The id of a schema under a subject, where it is registered if need be. Blocks likewise.
    ///
    /// # Errors
    /// When nobody answers, or the schema does not fit the versions before.
    pub(crate) fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let body = json!({ "schema": schema }).to_string();
        let (url, answer) = self.ask(&format!("/subjects/{subject}/versions"), Some(&body))?;
        let id = answer["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| RegistryError::Refused { url, why: format!("no id for subject `{subject}`: {answer}") })
    }

    /// The schema of an answer, with the schemas in it that it refers to.
    fn whole(&self, url: &str, answer: &Value, depth: usize) -> Result<Value, RegistryError> {
        let refused = |why: String| RegistryError::Refused { url: url.to_owned(), why };
        if let Some(kind) = answer["schemaType"].as_str().filter(|kind| *kind != "AVRO") {
            return Err(refused(format!("the schema is {kind}, not AVRO")));
        }
        let Some(text) = answer["schema"].as_str() else { return Ok(Value::Null) };
        // A schema that is just a name of a type is text that is no JSON.
        let schema = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        let references = answer["references"].as_array().map_or(&[][..], Vec::as_slice);
        if references.is_empty() {
            return Ok(schema);
        }
        if depth >= DEPTH_MAX {
            return Err(refused(format!("the schema's references are nested more than {DEPTH_MAX} deep")));
        }
        let mut referenced = Vec::new();
        for reference in references {
            let (Some(subject), Some(version)) = (reference["subject"].as_str(), reference["version"].as_i64()) else {
                return Err(refused(format!("a reference without subject or version: {reference}")));
            };
            let (_, answer) = self.ask(&format!("/subjects/{subject}/versions/{version}"), None)?;
            referenced.push(self.whole(url, &answer, depth + 1)?);
        }
        Ok(references::inline(schema, referenced))
    }

    /// Asks one address after the other until one answers.
    fn ask(&self, path: &str, body: Option<&str>) -> Result<(String, Value), RegistryError> {
        let mut failed = None;
        for url in &self.urls {
            match self.ask_at(url, path, body) {
                Ok(answer) => return Ok((url.clone(), answer)),
                Err(error @ RegistryError::Unavailable { .. }) => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or(RegistryError::Unavailable { url: String::new(), why: "there is no address".to_owned() }))
    }

    fn ask_at(&self, url: &str, path: &str, body: Option<&str>) -> Result<Value, RegistryError> {
        let address = format!("{url}{path}");
        let headers = [("accept", Some(CONTENT_TYPE)), ("authorization", self.authorization.as_deref())];
        let headers = headers.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let answered = match body {
            None => headers.fold(self.agent.get(&address), |request, (name, value)| request.header(name, value)).call(),
            Some(body) => headers
                .fold(self.agent.post(&address), |request, (name, value)| request.header(name, value))
                .header("content-type", CONTENT_TYPE)
                .send(body),
        };
        let unavailable = |why: String| RegistryError::Unavailable { url: url.to_owned(), why };
        let mut answer = answered.map_err(|error| unavailable(error.to_string()))?;
        let status = answer.status();
        let text = answer.body_mut().read_to_string().map_err(|error| unavailable(error.to_string()))?;
        let answer: Option<Value> = serde_json::from_str(&text).ok();
        if status.is_success() {
            return answer.ok_or_else(|| unavailable(format!("its answer to {path} is not JSON")));
        }
        let said = answer.as_ref().and_then(|answer| answer["message"].as_str()).unwrap_or("no more is said");
        let why = format!("{said} (status {status}, {path})");
        // What is wrong with the request stays wrong. Who may ask, and how often, can be changed.
        let stays = status.is_client_error() && ![401, 403, 408, 429].contains(&status.as_u16());
        Err(if stays { RegistryError::Refused { url: url.to_owned(), why } } else { unavailable(why) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_settings_is_named() {
        let of = |properties: &[(&str, &str)]| {
            let main = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Registry::of(&Clusters { kafka: [("main".to_owned(), main)].into() }, "main")
                .err()
                .map(|error| error.to_string())
        };
        assert!(of(&[]).unwrap().contains("schema_registry_url"));
        assert!(of(&[("schema.registry.url", "registry:8081")]).unwrap().contains("http://"));
        let url = ("schema.registry.url", "http://a:1/, https://b:2");
        assert_eq!(of(&[url]), None);
        assert!(of(&[url, ("schema.registry.urls", "")]).unwrap().contains("schema.registry.urls"));
        assert!(of(&[url, ("schema.registry.ssl.ca.location", "/nowhere.pem")]).unwrap().contains("/nowhere.pem"));
        let empty = tempfile::NamedTempFile::new().unwrap();
        let path = empty.path().to_str().unwrap();
        let error = of(&[url, ("schema.registry.ssl.ca.location", path)]).unwrap();
        assert!(error.contains(&format!("{path} holds no certificate")), "{error}");
    }
}
