//! The gateways that share a store.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::admin::pages::text::{decimal, moment};
use crate::api::{Instance, InstanceList};

/// What each gateway runs, holds, and when it was last heard of.
pub(crate) fn table(fleet: &InstanceList, now: Timestamp) -> Markup {
    let ours = fleet.instances.iter().find(|instance| instance.id == fleet.this);
    html! {
        div.scroll {
            table {
                caption.unseen { "Gateways that share the store" }
                thead { tr {
                    th scope="col" { "Gateway" } th scope="col" { "Heard of" } th scope="col" { "Flag files" }
                    th scope="col" { "Version" } th scope="col" { "Up since" }
                } }
                tbody {
                    @for instance in &fleet.instances {
                        @let differs = instance.alive
                            && ours.is_some_and(|ours| ours.flag_set_version != instance.flag_set_version);
                        tr {
                            th scope="row" { (instance.name) }
                            td { (heard(instance, instance.id == fleet.this)) }
                            td { code { (instance.flag_set_version) } @if differs { " " b.bad { "differs" } } }
                            td { (instance.version) }
                            td { (moment(&instance.started, now)) }
                        }
                    }
                }
            }
        }
    }
}

fn heard(instance: &Instance, is_this: bool) -> Markup {
    let seconds = instance.lag_ms as f64 / 1000.0;
    html! {
        @if is_this { span.alive { "this one" } }
        @else if instance.alive { span.alive { (decimal(seconds)) " s ago" } }
        @else { b.bad { (instance.lag_ms / 1000) " s ago: gone" } }
    }
}
