"""How gunicorn logs, wherever it is started from this folder.

Of an address only the path is logged: its query may hold the id that a recruiting platform gave, and so may the page
that a request came from. People's network addresses are not kept either.
"""

access_log_format = '%(t)s "%(m)s %(U)s %(H)s" %(s)s %(b)s %(M)sms'
