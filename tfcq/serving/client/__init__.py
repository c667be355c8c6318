"""The client: `client` and `async_client` have the methods; `calls` says what a call sends, as generators without I/O."""
