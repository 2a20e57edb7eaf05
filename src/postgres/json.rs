//! JSON text as a parameter and as a column of type `json`.

mod parameter;

use sqlx::{
    Decode, Postgres, Type,
    error::BoxDynError,
    postgres::{PgTypeInfo, PgValueRef, types::Oid},
};

pub(crate) use parameter::Json;

use crate::headers::Headers;

/// JSON text that is read as `json`: cast to `text`, the server would copy it twice more.
#[derive(Debug)]
pub(crate) struct JsonText(pub(crate) String);

impl Type<Postgres> for JsonText {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(114))
    }
}

impl<'r> Decode<'r, Postgres> for JsonText {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        String::decode(value).map(Self)
    }
}

/// The headers of a row.
pub(crate) fn headers(json: Option<JsonText>) -> Headers {
    json.map_or_else(Headers::default, |json| Headers::from_json(&json.0))
}
