"""The report: result files in, one page out, as self-contained HTML and as Markdown.

`results` reads files, `groups` puts results of one benchmark together, the modules named after
what they show make sections of a `page.Page`, and `html` and `markdown` write that page. Nothing
here calls a model.
"""
