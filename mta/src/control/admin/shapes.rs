//! What a handler takes and answers, read off its own type: so the OpenAPI document cannot say anything else than the code.

use axum::{
    Extension, Json,
    extract::{
        Path as UrlPath, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::HeaderMap,
    response::Response,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{Csrf, Operator};
use crate::control::api::Refusal;

/// What goes in and comes out.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) query: Option<Schema>,
    pub(super) body: Option<Schema>,
    /// None: no JSON, or none that has a type.
    pub(super) answer: Option<Schema>,
}

/// An argument of a handler.
pub(super) trait Argument {
    /// Notes what of the request it reads.
    fn note(_shape: &mut Shape, _schemas: &mut SchemaGenerator) {}
}

impl<S> Argument for State<S> {}
impl<T> Argument for UrlPath<T> {}
impl Argument for Operator {}
impl Argument for HeaderMap {}
impl Argument for Option<Extension<Csrf>> {}

impl<T: JsonSchema> Argument for Result<Json<T>, JsonRejection> {
    fn note(shape: &mut Shape, schemas: &mut SchemaGenerator) {
        shape.body = Some(schemas.subschema_for::<T>());
    }
}

impl<T: JsonSchema> Argument for Result<Query<T>, QueryRejection> {
    fn note(shape: &mut Shape, schemas: &mut SchemaGenerator) {
        shape.query = Some(schemas.root_schema_for::<T>());
    }
}

/// What a handler answers.
pub(super) trait Answers {
    /// Notes what is in it.
    fn note(_shape: &mut Shape, _schemas: &mut SchemaGenerator) {}
}

impl Answers for Result<Response, Refusal> {}

impl<T: JsonSchema> Answers for Result<Json<T>, Refusal> {
    fn note(shape: &mut Shape, schemas: &mut SchemaGenerator) {
        shape.answer = Some(schemas.subschema_for::<T>());
    }
}

/// A handler whose arguments are `A`.
pub(super) trait Shaped<A> {
    /// What goes in and comes out.
    fn shape(schemas: &mut SchemaGenerator) -> Shape;
}

macro_rules! shaped {
    ($($argument:ident)*) => {
        impl<F, R, $($argument,)*> Shaped<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> R,
            R: Future,
            R::Output: Answers,
            $($argument: Argument,)*
        {
            fn shape(schemas: &mut SchemaGenerator) -> Shape {
                let mut shape = Shape::default();
                $($argument::note(&mut shape, schemas);)*
                R::Output::note(&mut shape, schemas);
                shape
            }
        }
    };
}

shaped!(A);
shaped!(A B);
shaped!(A B C);
shaped!(A B C D);
