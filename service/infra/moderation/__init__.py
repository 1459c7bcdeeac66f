"""Who judges content: nobody by default, an operator's words, a service over HTTP."""
