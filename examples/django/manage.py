"""A shop on Django: an order and its e-mail in one transaction, and a worker that sends it.

pip install django 'psycopg[binary]'
DATABASE_URL=postgresql://localhost/mydb python manage.py migrate
DATABASE_URL=postgresql://localhost/mydb python manage.py pgqrs_worker
DATABASE_URL=postgresql://localhost/mydb python manage.py test
"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    execute_from_command_line(sys.argv)
