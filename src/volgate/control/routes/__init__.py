"""What the API answers, a module a subject: each route converts, asks a service or an owner, and converts back."""
