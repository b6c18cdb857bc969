//! One macro that makes a settings table: the struct that serde reads, and the list that `tradewind config describe` prints.
//!
//! Both come from the same lines, so a setting cannot exist without its documentation.

/// One documented setting.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Setting {
    /// The key in its table.
    pub name: &'static str,
    /// Its doc comment: meaning, unit, default.
    pub doc: &'static [&'static str],
    /// A value as it stands in the file; the default itself when there is one.
    pub example: &'static str,
    /// Whether the file must have it.
    pub presence: Presence,
}

/// Whether the file must have a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// The file must name it.
    Required,
    /// Absent, the value shown in the example holds.
    Default,
    /// Absent means something of its own, which the doc comment tells.
    Optional,
}

/// One documented table.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Table {
    /// The header as it stands in the file; empty for the keys before the first header.
    pub header: &'static str,
    /// Its doc comment.
    pub doc: &'static [&'static str],
    /// Its settings, in order.
    pub settings: &'static [Setting],
}

/// `struct Name as "[header]" { pub key: Type = "example", Presence; … tables { pub key: Type; … } }`
macro_rules! settings {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident as $header:literal {
            $(
                $(#[doc = $fdoc:literal])*
                $(#[serde($($serde:tt)*)])?
                pub $field:ident: $type:ty = $example:literal, $presence:ident;
            )*
            $(tables {
                $(
                    $(#[doc = $tdoc:literal])*
                    $(#[serde($($tserde:tt)*)])?
                    pub $table:ident: $ttype:ty;
                )*
            })?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[doc = $fdoc])*
                $(#[serde($($serde)*)])?
                pub $field: $type,
            )*
            $($(
                $(#[doc = $tdoc])*
                $(#[serde($($tserde)*)])?
                pub $table: $ttype,
            )*)?
        }

        impl $name {
            /// This table as `tradewind config describe` prints it.
            pub const TABLE: crate::config::settings::Table = crate::config::settings::Table {
                header: $header,
                doc: &[$($doc),*],
                settings: &[$(crate::config::settings::Setting {
                    name: stringify!($field),
                    doc: &[$($fdoc),*],
                    example: $example,
                    presence: crate::config::settings::Presence::$presence,
                }),*],
            };
        }
    };
}
pub(crate) use settings;
