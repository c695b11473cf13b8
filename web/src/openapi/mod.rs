//! The description of the HTTP APIs (OpenAPI 3.1): made of the table of routes and the types of their handlers, so it cannot say
//! anything else than they do.

mod document;
mod known;
mod operation;
mod page;
mod schema;
mod serve;
mod table;

pub(crate) use document::{Described, Document, document};
pub(crate) use operation::{Answer, Content, Input, Operation, Output, Parameter, Parts, Place};
pub(crate) use schema::{Describe, Member, Schema, Schemas, member_of};
pub(crate) use serve::{Documents, routes};
pub(crate) use table::{Table, Tag};

pub(crate) use postledger_describe::Describe;
