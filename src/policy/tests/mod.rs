//! The rules of the policy, each in rows of a request, a key and what becomes of it.

mod fixture;
mod order;
mod readings;
mod routes;
