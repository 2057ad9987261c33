"""The chat server.

config        flags
loading       from a model to an engine
chat_request  a request, read from JSON
streaming     the text of a reply while it is generated
connections   HTTP with time limits
app           the endpoints
"""
