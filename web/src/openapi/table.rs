//! The table of routes, from which both the router and the document are made: a route that is not described cannot be added.

use std::any::type_name;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn;
use axum::routing::{MethodFilter, on};

use super::operation::{Documented, Operation};
use super::schema::Schemas;
use crate::api::caller::operators_only;
use crate::{Port, Site};

/// Routes of one subject.
pub struct Table<P> {
    router: Router<Arc<Site<P>>>,
    tag: Tag,
    entries: Vec<Entry>,
}

/// What operations are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub name: &'static str,
    pub doc: &'static str,
}

/// A method of a path.
pub struct Entry {
    pub tag: Tag,
    pub method: Method,
    pub path: &'static str,
    /// In a few words.
    pub summary: &'static str,
    /// More of it; may be empty.
    pub more: &'static str,
    /// The handler's place in the source.
    pub handler: &'static str,
    pub access: Access,
    pub describe: fn(&mut Operation, &mut Schemas),
}

/// Who gets through to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Anybody,
    /// Whoever logs in; an account's login sees what is its own.
    LoggedIn,
    Operators,
}

macro_rules! methods {
    ($($name:ident $method:ident,)*) => {
        impl<P: Port> Table<P> {$(
            pub fn $name<H, T, A>(self, path: &'static str, summary: &'static str, handler: H) -> Table<P>
            where
                H: Handler<T, Arc<Site<P>>> + Documented<A>,
                T: 'static,
            {
                self.route(Method::$method, path, summary, handler)
            }
        )*}
    };
}

methods! {
    get GET,
    post POST,
    put PUT,
    patch PATCH,
    delete DELETE,
}

impl<P: Port> Table<P> {
    pub fn of(name: &'static str, doc: &'static str) -> Table<P> {
        Table { router: Router::new(), tag: Tag { name, doc }, entries: Vec::new() }
    }

    fn route<H, T, A>(mut self, method: Method, path: &'static str, summary: &'static str, handler: H) -> Table<P>
    where
        H: Handler<T, Arc<Site<P>>> + Documented<A>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("a method that routers know");
        self.router = self.router.route(path, on(filter, handler));
        self.entries.push(Entry {
            tag: self.tag,
            method,
            path,
            summary,
            more: "",
            handler: type_name::<H>(),
            access: Access::LoggedIn,
            describe: H::describe,
        });
        self
    }

    /// Says more of the last route.
    pub fn more(mut self, text: &'static str) -> Table<P> {
        self.entries.last_mut().expect("a route to say more of").more = text;
        self
    }

    pub fn merge(mut self, other: Table<P>) -> Table<P> {
        self.router = self.router.merge(other.router);
        self.entries.extend(other.entries);
        self
    }

    /// Lets only callers through to whom all accounts are open.
    pub fn for_operators(mut self) -> Table<P> {
        self.router = self.router.route_layer(from_fn(operators_only));
        self.with_access(Access::Operators)
    }

    /// Says that no login is asked for.
    pub fn for_anybody(self) -> Table<P> {
        self.with_access(Access::Anybody)
    }

    fn with_access(mut self, access: Access) -> Table<P> {
        for entry in &mut self.entries {
            entry.access = access;
        }
        self
    }

    pub fn into_parts(self) -> (Router<Arc<Site<P>>>, Vec<Entry>) {
        (self.router, self.entries)
    }
}

impl Entry {
    /// `accounts_list`: the handler's module and name.
    pub fn operation_id(&self) -> String {
        let path = self.handler.split('<').next().unwrap_or_default();
        let mut parts = path.rsplit("::");
        let (name, module) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        format!("{module}_{name}")
    }
}
