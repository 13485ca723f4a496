//! Encodes the parameters of a statement before it is sent, so that the driver's future borrows nothing from the caller
//! and cannot fail after it has got its number.

use std::{error, fmt};

use bytes::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

use crate::error::BoxError;

/// Maximum number of parameters: the message has a 16-bit count.
const MAX_COUNT: usize = u16::MAX as usize;
/// Maximum size of all parameters in bytes. The length of a message is a signed 32-bit number, and the rest of the
/// message takes less than the difference.
const MAX_SIZE: usize = i32::MAX as usize - (1 << 20);

/// An encoded parameter.
pub(super) struct Encoded {
    /// `None` for `NULL`.
    bytes: Option<BytesMut>,
    format: Format,
}

/// A parameter that cannot be encoded.
#[derive(Debug)]
struct ParameterError {
    index: usize,
    cause: BoxError,
}

impl fmt::Display for ParameterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parameter ${} cannot be encoded", self.index + 1)
    }
}

impl error::Error for ParameterError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.cause)
    }
}

/// Encodes parameters as values of these types.
pub(super) fn encode(params: &[&(dyn ToSql + Sync)], types: &[Type]) -> Result<Vec<Encoded>, BoxError> {
    if params.len() != types.len() || params.len() > MAX_COUNT {
        let (expected, got) = (types.len(), params.len());
        return Err(format!("the statement has {expected} parameters, but {got} were given").into());
    }
    let mut size = 0;
    let mut encoded = Vec::with_capacity(params.len());
    for (index, (param, ty)) in params.iter().zip(types).enumerate() {
        let mut bytes = BytesMut::new();
        let is_null = param.to_sql_checked(ty, &mut bytes).map_err(|cause| ParameterError { index, cause })?;
        size += bytes.len() + size_of::<u32>() + size_of::<u16>();
        let bytes = match is_null {
            IsNull::No => Some(bytes),
            IsNull::Yes => None,
        };
        encoded.push(Encoded { bytes, format: param.encode_format(ty) });
    }
    if size > MAX_SIZE {
        return Err(format!("the parameters take {size} bytes, more than a message may have").into());
    }
    Ok(encoded)
}

impl ToSql for Encoded {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        Ok(match &self.bytes {
            Some(bytes) => {
                out.extend_from_slice(bytes);
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn accepts(_: &Type) -> bool {
        true // the type was checked when the parameter was encoded
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        self.to_sql(ty, out)
    }

    fn encode_format(&self, _: &Type) -> Format {
        self.format
    }
}

impl fmt::Debug for Encoded {
    /// Omits the value, which may be a secret. The driver logs its parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Chain;

    fn encoded(param: &(dyn ToSql + Sync), ty: &Type) -> (Vec<u8>, bool) {
        let encoded = encode(&[param], std::slice::from_ref(ty)).unwrap();
        let mut out = BytesMut::from(&b"before"[..]);
        let is_null = matches!(encoded[0].to_sql_checked(ty, &mut out).unwrap(), IsNull::Yes);
        (out[6..].to_vec(), is_null)
    }

    #[test]
    fn encodes_values_like_the_driver() {
        assert_eq!(encoded(&1i32, &Type::INT4), (vec![0, 0, 0, 1], false));
        assert_eq!(encoded(&"text", &Type::TEXT), (b"text".to_vec(), false));
        assert_eq!(encoded(&"", &Type::TEXT), (vec![], false));
        assert_eq!(encoded(&None::<i32>, &Type::INT4), (vec![], true));
    }

    #[test]
    fn rejects_a_wrong_number_or_type_of_parameters() {
        let message = |params: &[&(dyn ToSql + Sync)], types: &[Type]| {
            let error = encode(params, types).unwrap_err();
            Chain(&*error).to_string()
        };
        assert_eq!(message(&[&1i32], &[]), "the statement has 0 parameters, but 1 were given");
        assert_eq!(message(&[], &[Type::INT4]), "the statement has 1 parameters, but 0 were given");
        let wrong = message(&[&1i32, &2i32], &[Type::INT4, Type::TEXT]);
        assert!(wrong.starts_with("parameter $2 cannot be encoded: "), "{wrong}");
    }

    #[test]
    fn debug_output_contains_no_value() {
        let encoded = encode(&[&"secret"], &[Type::TEXT]).unwrap();
        assert_eq!(format!("{encoded:?}"), "[Encoded { .. }]");
    }
}
