//! What Tidemill promises of Kafka, with a real broker and a real registry.
//! Needs Python, Java, Maven, `openssl`, `setpriv` and `kcat`.

mod avro;
mod closing;
mod kcat;
mod replay;
mod reprocess;
mod sink;
mod source;
