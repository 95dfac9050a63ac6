//! Reading container files back, through `apache_avro`, which shares no code with our encoder.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use apache_avro::{Reader, Schema};
use serde_json::Value as Json;
use tidemill_core::parse_avro_schema;

use super::container::{Metadata, header_of, read_header};

/// Why a file can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("can't read it: {0}")]
    Io(#[from] std::io::Error),
    #[error("its header lacks a schema")]
    NoSchema,
    #[error("the schema in its header is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not valid Avro: {0}")]
    Avro(#[from] Box<apache_avro::Error>),
}

/// An open file.
pub(super) struct OpenFile {
    pub(super) metadata: Metadata,
    /// The schema as the file has it.
    pub(super) schema: Schema,
    /// The records; uuids as the text that was written.
    pub(super) records: Reader<'static, Box<dyn Read>>,
}

impl OpenFile {
    /// Opens a file. The reader would turn a uuid's text into one form of many, and refuse others, so it gets a schema that
    /// calls uuids plain strings: ids are hashed by their text.
    pub(super) fn open(path: &Path) -> Result<Self, ReadError> {
        let mut file = BufReader::with_capacity(256 << 10, File::open(path)?);
        let (metadata, sync) = read_header(&mut file)?;
        let text = metadata.get("avro.schema").ok_or(ReadError::NoSchema)?;
        let mut json: Json = serde_json::from_slice(text)?;
        let schema = parse_avro_schema(&json)?;
        without_uuid(&mut json);
        let plain = json.to_string();
        let null = b"null".to_vec();
        let codec = metadata.get("avro.codec").unwrap_or(&null);
        let entries = [("avro.codec", &codec[..]), ("avro.schema", plain.as_bytes())];
        let header = header_of(entries.into_iter(), sync);
        let input: Box<dyn Read> = Box::new(Cursor::new(header).chain(file));
        Ok(Self { metadata, schema, records: Reader::new(input).map_err(Box::new)? })
    }
}

fn without_uuid(json: &mut Json) {
    match json {
        Json::Object(members) => {
            if members.get("logicalType").is_some_and(|name| name == "uuid") {
                members.remove("logicalType");
            }
            members.values_mut().for_each(without_uuid);
        }
        Json::Array(items) => items.iter_mut().for_each(without_uuid),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_whose_schema_has_no_name_is_refused() {
        let entries = [("avro.schema", &br#"{"type":"record","name":"my-play","fields":[]}"#[..])];
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), header_of(entries.into_iter(), [0; 16])).unwrap();
        let error = OpenFile::open(file.path()).err().unwrap();
        assert!(error.to_string().starts_with("not valid Avro: Invalid schema name my-play"), "{error}");
    }
}
