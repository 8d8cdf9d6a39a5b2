"""`dispatcher demo`: the whole product on one machine, with jobs of several tenants to watch."""

from dispatcher.demo.course import run as run
