"""A page on this machine that answers questions about a picture one drops on it.

    __main__.py    the command
    server.py      the page, and answers as JSON, on 127.0.0.1 alone
    page.html      what a browser shows

Served by the standard library: Gradio does not install beside the Pillow that rows are made with.
"""
