//! The codes of this crate's diagnostics.

macro_rules! codes {
    ($($constant:ident $code:literal $meaning:literal)*) => {
        $(pub(crate) const $constant: &str = $code;)*

        /// Every code that this crate gives, with what it means. Kinds add codes of their own through findings.
        pub const CODES: &[(&str, &str)] = &[$(($code, $meaning)),*];
    };
}

codes! {
    TOPOLOGY_UNREADABLE "topology-unreadable" "The topology file can't be read."
    NOT_UTF8 "not-utf8" "The topology file is not UTF-8."
    TOML_SYNTAX "toml-syntax" "The text is not TOML."
    DUPLICATE_KEY "duplicate-key" "A key, a table or an item of a list is there twice."
    MISSING_TABLE "missing-table" "There is no `[topology]`."
    UNKNOWN_TABLE "unknown-table" "A topology has no such table."
    UNKNOWN_KEY "unknown-key" "The table has no such key."
    MISSING_KEY "missing-key" "A key that must be there is not."
    WRONG_TYPE "wrong-type" "A value of another type is expected."
    BAD_VALUE "bad-value" "The text is no duration, size or number of the kind that is expected."
    OUT_OF_RANGE "out-of-range" "The value is too small or too large, or the list too short."
    UNKNOWN_CHOICE "unknown-choice" "The text is none of those that the option takes."
    BAD_NAME "bad-name" "A name has other characters than letters, digits, `_` and `-`, or is reserved."
    DUPLICATE_NAME "duplicate-name" "Two of the sources, stages and sinks have the same name."
    BAD_BUCKET "bad-bucket" "The width of an hour does not divide a day."
    UNKNOWN_KIND "unknown-kind" "There is no such kind of source, stage or sink."
    SINGLE_WORKER "single-worker" "A stage with state, or a source or sink, was given `workers`."
    UNKNOWN_INPUT "unknown-input" "`from` or `comes_from` names nothing that there is."
    DUPLICATE_INPUT "duplicate-input" "`from` names the same thing twice."
    NO_OUTPUT "no-output" "`from` names something that sends nothing there."
    CYCLE "cycle" "Stages take from each other in a circle."
    SHAPE_MISMATCH "shape-mismatch" "What is sent is not what is taken: raw records against parsed events."
    NO_SOURCE "no-source" "There is no source."
    NO_SINK "no-sink" "There is no sink."
    UNUSED_OUTPUT "unused-output" "Nothing takes from a source or stage."
    NO_TYPES "no-types" "Records are to be parsed, but no type is declared."
    UNKNOWN_TYPE "unknown-type" "A type is named that is neither declared nor made by a stage."
    TYPE_NEVER_ARRIVES "type-never-arrives" "No input can bring a type that is to be taken."
    TYPE_CLASH "type-clash" "Inputs send different types of the same name."
    SHARED_TYPES "shared-types" "Types wait for several sources, only because any parser may bring them."
    WEAK_SINK "weak-sink" "A sink promises less than the topology asks for."
    SAME_PATH "same-path" "Two sinks would write to the same directories."
    UNUSED_TYPE "unused-type" "A declared type is never parsed."
    SCHEMA_UNREADABLE "schema-unreadable" "The file of a schema can't be read."
    SCHEMA_INVALID "schema-invalid" "The file is not an Avro record schema."
    UNSUPPORTED_FIELD "unsupported-field" "The schema has a field that can't be carried."
    UNKNOWN_FIELD "unknown-field" "The schema has no such field."
    NOT_A_TIME "not-a-time" "The time field is not a timestamp that is never null."
    NOT_AN_ID "not-an-id" "An id field is not a single value that is never null."
    NOT_A_PRODUCER "not-a-producer" "A field can't name producers or say that they end, or markers speak for a type without producers."
    KIND_AT_FAULT "kind-at-fault" "A kind's own description is inconsistent: a fault of the program."
}
