//! Reads the fields of a message.

use super::super::error::Report;

/// The fields of a message that were not read yet.
#[derive(Clone, Copy, Debug)]
pub(in crate::postgres) struct Fields<'a>(pub(in crate::postgres) &'a [u8]);

impl<'a> Fields<'a> {
    fn invalid() -> Report {
        Report::error("08P01", "invalid message format")
    }

    pub(in crate::postgres) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Report> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(Self::invalid)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(in crate::postgres) fn byte(&mut self) -> Result<u8, Report> {
        Ok(self.bytes(1)?[0])
    }

    pub(in crate::postgres) fn i16(&mut self) -> Result<i16, Report> {
        let bytes = self.bytes(2)?;
        Ok(i16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(in crate::postgres) fn i32(&mut self) -> Result<i32, Report> {
        let bytes = self.bytes(4)?;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Reads a text that ends with a zero byte.
    pub(in crate::postgres) fn text(&mut self) -> Result<&'a str, Report> {
        let length = self.0.iter().position(|byte| *byte == 0).ok_or_else(Self::invalid)?;
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| Self::invalid())?;
        self.byte()?;
        Ok(text)
    }

    /// Reads a value with its length. A length of -1 stands for NULL.
    pub(in crate::postgres) fn value(&mut self) -> Result<Option<&'a [u8]>, Report> {
        let length = self.i32()?;
        usize::try_from(length).ok().map(|length| self.bytes(length)).transpose()
    }

    /// Reads a list of 16-bit numbers with its length.
    pub(in crate::postgres) fn list(&mut self) -> Result<Vec<i16>, Report> {
        (0..self.i16()?).map(|_| self.i16()).collect()
    }
}
