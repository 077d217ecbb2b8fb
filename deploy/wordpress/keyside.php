<?php
/**
 * Plugin Name: Keyside
 * Description: REST requests that come through Keyside act as the owner of their API key.
 * Version: 0.1.0
 * Requires at least: 5.6
 * Requires PHP: 7.4
 * License: Apache-2.0
 *
 * A must-use plugin: it belongs into wp-content/mu-plugins. README.md beside it says how to set it up.
 *
 * Keyside has checked the key and names its owner in X-Key-Owner. Anybody could send that field, so it is believed only
 * beside the credential that Keyside and this site share: KEYSIDE_AUTHORIZATION, which Keyside sends as Authorization.
 * Without it, or where the constant is missing, empty or short, this file does nothing at all.
 */

defined('ABSPATH') || exit;

/**
 * What Keyside says of the key that this request came with: id, owner, scopes (a list) and mode, all of them text, and
 * empty where Keyside says nothing. Null: the request has no key, or did not come through Keyside. For other plugins.
 */
function keyside_key(): ?array
{
    return Keyside::key();
}

final class Keyside
{
    /** A shorter credential could be guessed, or is a scheme with nothing behind it. */
    private const SHORTEST = 24;

    /** @var array<string, mixed>|null */
    private static $key = null;

    /** Runs while must-use plugins are loaded: before anybody asks who the user is, and before WordPress adds slashes. */
    public static function start(): void
    {
        if (!self::is_sent_by_keyside()) {
            return;
        }
        // It has done its work. Plugins that take any Bearer token for theirs, and WordPress's application passwords,
        // which take any Basic one, would refuse it. What the web server was sent stays as it is, so that plugins which
        // ask getallheaders() or apache_request_headers() still see it.
        unset($_SERVER['HTTP_AUTHORIZATION'], $_SERVER['REDIRECT_HTTP_AUTHORIZATION']);
        unset($_SERVER['PHP_AUTH_USER'], $_SERVER['PHP_AUTH_PW'], $_SERVER['PHP_AUTH_DIGEST']);

        $key = [
            'id' => self::field('HTTP_X_KEY_ID'),
            'owner' => self::field('HTTP_X_KEY_OWNER'),
            'scopes' => preg_split('/ +/', self::field('HTTP_X_KEY_SCOPES'), -1, PREG_SPLIT_NO_EMPTY),
            'mode' => self::field('HTTP_X_KEY_MODE'),
        ];
        // A public route: no key was asked for, and whoever calls is for WordPress to find out.
        if ($key['id'] === '' && $key['owner'] === '') {
            return;
        }
        self::$key = $key;
        // Nothing but the key says who this is, so that no login that came along counts.
        $_COOKIE = [];
        unset($_SERVER['HTTP_COOKIE']);
        // Caches take a request without cookies for a stranger's, and would give its answer to strangers.
        defined('DONOTCACHEPAGE') || define('DONOTCACHEPAGE', true);

        // Twice: after the cookies (10) and before the others (from 15), which leave a user alone that is known; and
        // last, whatever they say.
        add_filter('determine_current_user', [self::class, 'user'], 11);
        add_filter('determine_current_user', [self::class, 'user'], PHP_INT_MAX);
        add_filter('rest_authentication_errors', [self::class, 'errors'], PHP_INT_MAX);
    }

    /** @return array<string, mixed>|null */
    public static function key(): ?array
    {
        return self::$key;
    }

    /**
     * Whom the request acts as: the owner in the REST API, nobody on pages, in wp-admin and in XML-RPC. WordPress asks
     * again when the REST API begins, as it does for application passwords.
     *
     * @return int
     */
    public static function user()
    {
        return defined('REST_REQUEST') && REST_REQUEST ? self::owner() : 0;
    }

    /**
     * Refuses an owner that is no user here: it must not pass as a visitor, who may read what is public. And refuses
     * where something else has put another user in the owner's place.
     *
     * @param mixed $result
     * @return mixed
     */
    public static function errors($result)
    {
        $owner = self::owner();
        if ($owner === 0) {
            $message = 'The owner of this API key is no user of this site.';
            return new WP_Error('keyside_unknown_owner', $message, ['status' => 403]);
        }
        if (is_wp_error($result)) {
            return $result;
        }
        if (get_current_user_id() !== $owner) {
            $message = 'This request would act as another user than the owner of its API key.';
            return new WP_Error('keyside_other_user', $message, ['status' => 403]);
        }
        return true;
    }

    /** The id of the user whose login is the owner's id, letter for letter; 0 where there is none. */
    private static function owner(): int
    {
        $user = get_user_by('login', self::$key['owner']);
        // WordPress strips tags and escapes from what it looks for, and databases fold case and accents.
        return $user instanceof WP_User && $user->user_login === self::$key['owner'] ? (int) $user->ID : 0;
    }

    private static function is_sent_by_keyside(): bool
    {
        $shared = defined('KEYSIDE_AUTHORIZATION') ? KEYSIDE_AUTHORIZATION : '';
        if (!is_string($shared) || strlen(trim($shared)) < self::SHORTEST) {
            return false;
        }
        // Apache moves the field to the second name when it rewrites a request.
        $sent = self::field('HTTP_AUTHORIZATION');
        $sent = $sent === '' ? self::field('REDIRECT_HTTP_AUTHORIZATION') : $sent;
        return hash_equals(trim($shared), $sent);
    }

    private static function field(string $name): string
    {
        return isset($_SERVER[$name]) && is_string($_SERVER[$name]) ? trim($_SERVER[$name]) : '';
    }
}

Keyside::start();
