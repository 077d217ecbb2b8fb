<?php
/**
 * Plugin Name: A wallet for tests
 *
 * As much of a wallet's REST API as the tests need, and what WordPress makes of a request.
 */

defined('ABSPATH') || exit;

/** Whom the request acts as, and what WordPress knows of it. */
function wkwp_who(): array
{
    return [
        'user' => wp_get_current_user()->user_login ?: '',
        'is_ssl' => is_ssl(),
        'key' => function_exists('keyside_key') ? keyside_key() : 'no plugin',
        'authorization' => array_intersect_key($_SERVER, array_flip([
            'HTTP_AUTHORIZATION', 'REDIRECT_HTTP_AUTHORIZATION', 'PHP_AUTH_USER', 'PHP_AUTH_PW',
        ])),
        'sent' => array_change_key_case(getallheaders())['authorization'] ?? '',
    ];
}

function wkwp_wallets(WP_REST_Request $request): WP_REST_Response
{
    global $wpdb;
    $per_page = max(1, (int) ($request['per_page'] ?: 10));
    $page = max(1, (int) ($request['page'] ?: 1));
    $total = (int) $wpdb->get_var("SELECT COUNT(*) FROM {$wpdb->prefix}wkwp_wallets");
    $sql = "SELECT id, balance FROM {$wpdb->prefix}wkwp_wallets ORDER BY id LIMIT %d OFFSET %d";
    $rows = $wpdb->get_results($wpdb->prepare($sql, $per_page, ($page - 1) * $per_page), ARRAY_A);
    $pages = (int) ceil($total / $per_page);
    $response = new WP_REST_Response($rows);
    $response->header('X-WP-Total', (string) $total);
    $response->header('X-WP-TotalPages', (string) $pages);
    if ($page < $pages) {
        $next = ['per_page' => $per_page, 'page' => $page + 1];
        $response->link_header('next', add_query_arg($next, rest_url('wkwp-wallet/v1/wallets')));
    }
    return $response;
}

function wkwp_credit(WP_REST_Request $request): WP_REST_Response
{
    global $wpdb;
    $sql = "UPDATE {$wpdb->prefix}wkwp_wallets SET balance = balance + %d WHERE id = %d";
    $wpdb->query($wpdb->prepare($sql, (int) $request['amount'], (int) $request['id']));
    return new WP_REST_Response(wkwp_who(), 201);
}

add_action('rest_api_init', static function (): void {
    $manages = static function (): bool {
        return current_user_can('manage_woocommerce');
    };
    $reads = static function (): bool {
        return current_user_can('read');
    };
    $route = static function (string $path, string $methods, string $callback, callable $permission): void {
        $route = ['methods' => $methods, 'callback' => $callback, 'permission_callback' => $permission];
        register_rest_route('wkwp-wallet/v1', $path, $route);
    };
    $route('/wallets', 'GET', 'wkwp_wallets', $reads);
    $route('/wallets/(?P<id>\d+)/credit', 'POST', 'wkwp_credit', $manages);
    $route('/withdrawals/(?P<id>\d+)/approve', 'POST', 'wkwp_credit', $manages);
    $route('/who', 'GET', 'wkwp_who', '__return_true');
    $route('/open/who', 'GET', 'wkwp_who', '__return_true');
});

/**
 * A plugin with keys of its own, which asks for them when and where WooCommerce does (class-wc-rest-authentication.php):
 * it leaves alone a user who is known, takes a pair over TLS, from the query first, and then parameters of OAuth.
 */
final class Wkwp_Other_Keys
{
    /** @var WP_Error|null */
    private static $error = null;

    public static function user($user)
    {
        if (!empty($user)) {
            return $user;
        }
        $key = $_GET['consumer_key'] ?? $_SERVER['PHP_AUTH_USER'] ?? '';
        $secret = $_GET['consumer_secret'] ?? $_SERVER['PHP_AUTH_PW'] ?? '';
        if (is_ssl() && [$key, $secret] === ['ck_other', 'cs_other']) {
            return 1;
        }
        if (preg_grep('/^oauth_/', array_keys($_GET + $_POST))) {
            self::$error = new WP_Error('wkwp_oauth', 'The consumer key is invalid.', ['status' => 401]);
        }
        return false;
    }

    public static function fallback($error)
    {
        if (empty($error) && self::$error === null && get_current_user_id() === 0) {
            $user = self::user(false);
            if ($user) {
                wp_set_current_user($user);
                return true;
            }
        }
        return $error;
    }

    public static function errors($error)
    {
        return empty($error) ? self::$error : $error;
    }
}
add_filter('determine_current_user', ['Wkwp_Other_Keys', 'user'], 15);
add_filter('rest_authentication_errors', ['Wkwp_Other_Keys', 'fallback']);
add_filter('rest_authentication_errors', ['Wkwp_Other_Keys', 'errors'], 15);

// A plugin that has its own opinion of who the user is.
add_action('init', static function (): void {
    if (isset($_GET['wkwp_act_as'])) {
        wp_set_current_user((int) $_GET['wkwp_act_as']);
    }
});

// The same question outside of the REST API.
add_action('wp_loaded', static function (): void {
    if (isset($_GET['wkwp_page'])) {
        wp_send_json(wkwp_who());
    }
});
